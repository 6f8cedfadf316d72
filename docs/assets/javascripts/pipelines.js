// The look-up of "Does it work on my pipeline?": a box that searches the tables of its page.
(() => {
  "use strict";

  const WORDS = {
    en: {
      label: "Your pipeline's class",
      hint: "a part of its name, then Enter",
      none: "No class with this in its name was measured. A class of your own, or of a newer release, is served where its code or its first step shows what it does, and refused by bind otherwise, with the reason.",
      found: (n) => (n === 1 ? "1 class; Enter shows its verdict" : `${n} classes; Enter shows the first, Tab goes through them`),
      on: "on",
    },
    zh: {
      label: "您的管道类名",
      hint: "输入类名的一部分，然后按回车键",
      none: "没有测试过名称中含有这些字的类。您自己的类或新版本中的类：只要代码或第一个去噪步能说明其行为即可使用，否则 bind 会拒绝并说明原因。",
      found: (n) => `${n} 个类；按回车键查看第一个，按 Tab 键逐个选择`,
      on: "：",
    },
  };
  const SHOWN = 12;

  // The reasons of a table, whose cells have their numbers: the list below it, before the next heading.
  function reasons(table) {
    let below = table.closest(".md-typeset__scrollwrap") || table;
    while ((below = below.nextElementSibling) && !/^H\d$/.test(below.tagName)) {
      if (below.tagName === "OL") return [...below.children];
    }
    return [];
  }

  // Each class with its rows; a row is its table's headings, its cells, and its reasons.
  function read() {
    const classes = new Map();
    for (const table of document.querySelectorAll("article table")) {
      const heads = [...table.querySelectorAll("thead th")].map((th) => th.textContent.trim());
      if (heads[0] !== "class") continue;
      const listed = reasons(table);
      for (const tr of table.querySelectorAll("tbody tr")) {
        const cells = [...tr.cells];
        const name = cells[0].textContent.trim();
        if (!classes.has(name)) classes.set(name, []);
        const numbers = cells[heads.length - 1].textContent.match(/\d+/g) || [];
        classes.get(name).push({ heads, cells, whys: numbers.map((n) => listed[n - 1]) });
      }
    }
    return classes;
  }

  // Names with every word of the question, the shortest first: it has the least besides.
  function matches(classes, question) {
    const words = question.toLowerCase().split(/[\s_.]+/).filter(Boolean);
    if (!words.length) return [];
    const found = [...classes.keys()].filter((name) => words.every((w) => name.toLowerCase().includes(w)));
    return found.sort((a, b) => a.length - b.length || a.localeCompare(b));
  }

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function verdict(name, rows, words) {
    const card = element("div", { className: "unicb-verdict" });
    for (const { heads, cells, whys } of rows) {
      const text = (head) => cells[heads.indexOf(head)].textContent.trim();
      card.append(element("p", {}, element("strong", {}, `${name} ${words.on} ${text("library")}`)));
      const list = element("ul");
      for (let i = 3; i < heads.length - 2; i++) {
        const exact = heads[i] === "cut" && text("to") !== "–" ? ` (to ${text("to")})` : "";
        list.append(element("li", {}, `${heads[i]}: ${cells[i].textContent.trim()}${exact}`));
      }
      card.append(list);
      for (const why of whys) card.append(element("p", { innerHTML: why.innerHTML }));
    }
    return card;
  }

  function build(place) {
    const words = document.documentElement.lang.startsWith("zh") ? WORDS.zh : WORDS.en;
    const classes = read();
    const input = element("input", {
      type: "search", id: "unicb-class", autocomplete: "off", spellcheck: false, placeholder: words.hint,
    });
    const count = element("p", { className: "unicb-count" });
    count.setAttribute("role", "status");
    const list = element("ul");
    const answer = element("div");
    answer.setAttribute("aria-live", "polite");
    place.className = "unicb-lookup";
    place.append(element("label", { htmlFor: "unicb-class" }, words.label), input, count, list, answer);

    const show = (name) => {
      answer.replaceChildren(verdict(name, classes.get(name), words));
      history.replaceState(null, "", `?class=${encodeURIComponent(name)}${location.hash}`);
    };
    const find = () => {
      const found = matches(classes, input.value);
      answer.replaceChildren();
      list.replaceChildren(...found.slice(0, SHOWN).map((name) => {
        const button = element("button", { type: "button" }, name);
        button.addEventListener("click", () => show(name));
        return element("li", {}, button);
      }));
      count.textContent = !input.value.trim() ? "" : found.length ? words.found(found.length) : words.none;
      return found;
    };
    input.addEventListener("input", find);
    input.addEventListener("keydown", (event) => {
      // The theme's shortcuts are letters: they are not meant here.
      event.stopPropagation();
      if (event.key !== "Enter") return;
      event.preventDefault();
      const [first] = find();
      if (first) show(first);
    });
    const asked = new URLSearchParams(location.search).get("class");
    if (asked) {
      input.value = asked;
      const [first] = find();
      if (first) show(first);
    }
  }

  const place = document.getElementById("unicb-lookup");
  if (place) build(place);
})();

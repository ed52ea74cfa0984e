"use strict";
(() => {
  const FEW = 400; // more than that are drawn part by part, or a keystroke would take seconds
  const find = (selector) => document.querySelector(selector);
  const all = find(".all");
  const parts = all.querySelectorAll(".part");
  const cards = Array.from(document.querySelectorAll(".card"), (element) => ({
    element,
    link: element.querySelector(".open"),
    failed: element.classList.contains("failed"),
    text: null,
  }));

  // --- filter ---

  const form = find(".tools");
  const { words, failures } = form.elements;
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const textOf = (card) => {
    const parts = card.element.querySelectorAll(".prompt, .what, .reason, dd");
    card.text ??= plain(Array.from(parts, (part) => part.textContent).join("\n"));
    return card.text;
  };
  const filter = () => {
    const wanted = plain(words.value).split(/\s+/).filter(Boolean);
    const only = Boolean(failures?.checked);
    let count = 0;
    for (const card of cards) {
      const fits = (!only || card.failed) && wanted.every((word) => textOf(card).includes(word));
      card.element.hidden = !fits;
      count += fits;
    }
    const total = cards.length.toLocaleString("en");
    const is_whole = count === cards.length;
    find(".shown").value = is_whole ? `${total} shown` : `${count.toLocaleString("en")} of ${total} shown`;
    find(".none").hidden = count > 0;
    for (const part of parts) part.hidden = !part.querySelector(".card:not([hidden])");
    all.classList.toggle("filtered", count <= FEW && count < cards.length);
    all.classList.toggle("failures", only);
  };
  let soon = 0;
  form.addEventListener("input", () => {
    cancelAnimationFrame(soon);
    soon = requestAnimationFrame(filter);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("pageshow", filter); // a reload may keep what was typed
  filter();

  // --- full size ---

  const view = find(".view");
  const stage = find(".stage");
  const about = find(".words");
  const [place, told] = find("#place").children;
  const buttons = Object.fromEntries(
    Array.from(view.querySelectorAll("button"), (button) => [button.name, button]),
  );
  let current = null;

  const pictures = () => cards.filter((card) => card.link && !card.element.hidden);

  const full = (card) => {
    const small = card.link.firstElementChild;
    const large = document.createElement(small.localName);
    large.src = card.link.href;
    for (const name of ["width", "height", "alt", "aria-label"]) {
      if (small.hasAttribute(name)) large.setAttribute(name, small.getAttribute(name));
    }
    if (large.localName === "video") Object.assign(large, { controls: true, playsInline: true, loop: true });
    return large;
  };

  const described = (card) => {
    const prompt = card.element.querySelector(".prompt");
    const text = document.createElement("p");
    text.className = prompt.textContent.length > 280 ? "prompt long" : "prompt";
    text.lang = "";
    text.dir = "auto";
    text.textContent = prompt.textContent;
    const facts = card.element.querySelector(".facts").cloneNode(true);
    const file = facts.lastElementChild.querySelector("bdi");
    const link = document.createElement("a");
    link.href = card.link.href;
    file.replaceWith(link);
    link.append(file);
    return [text, facts];
  };

  const show = (card) => {
    const list = pictures();
    const index = list.indexOf(card);
    current = card;
    if (stage.contains(document.activeElement)) buttons.on.focus();
    stage.replaceChildren(full(card));
    about.replaceChildren(...described(card));
    about.scrollTop = 0;
    place.textContent = `${(index + 1).toLocaleString("en")} of ${list.length.toLocaleString("en")}`;
    told.textContent = `: ${card.element.querySelector(".prompt").textContent.slice(0, 200)}`;
    buttons.back.ariaDisabled = String(index === 0);
    buttons.on.ariaDisabled = String(index === list.length - 1);
    for (const next of [list[index + 1], list[index - 1]]) {
      if (next?.link.firstElementChild.localName === "img") new Image().src = next.link.href;
    }
  };

  const go = (where) => {
    const list = pictures();
    const index = where(list.indexOf(current), list.length - 1);
    if (list[index] && list[index] !== current) show(list[index]);
  };
  const moves = {
    ArrowLeft: (index) => index - 1,
    ArrowRight: (index) => index + 1,
    Home: () => 0,
    End: (_, last) => last,
  };

  all.addEventListener("click", (event) => {
    const link = event.target.closest(".open");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    show(cards.find((card) => card.link === link));
    view.showModal();
  });
  view.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    const is_taken = event.ctrlKey || event.metaKey || event.altKey || event.target.localName === "video";
    if (!move || is_taken) return;
    event.preventDefault();
    go(move);
  });
  buttons.back.addEventListener("click", () => go(moves.ArrowLeft));
  buttons.on.addEventListener("click", () => go(moves.ArrowRight));
  buttons.close.addEventListener("click", () => view.close());
  stage.addEventListener("click", (event) => {
    if (event.target === stage) view.close();
  });
  view.addEventListener("close", () => {
    stage.replaceChildren();
    current.link.focus({ preventScroll: true });
    current.link.scrollIntoView({ block: "nearest" });
  });

  // --- swipes ---

  let start = null;
  stage.addEventListener("touchstart", (event) => {
    start = event.touches.length === 1 ? event.touches[0] : null;
  }, { passive: true });
  stage.addEventListener("touchend", (event) => {
    if (!start || visualViewport.scale > 1) return;
    const across = event.changedTouches[0].clientX - start.clientX;
    const along = event.changedTouches[0].clientY - start.clientY;
    start = null;
    if (Math.abs(across) > 48 && Math.abs(across) > 2 * Math.abs(along)) {
      go(across < 0 ? moves.ArrowRight : moves.ArrowLeft);
    }
  }, { passive: true });
})();

// An answer as its tokens, tinted by probability. Hover or focus shows a token's alternatives.

import { byId, make } from "./elements.js";

const HIDE_DELAY = 200; // milliseconds for the pointer to move from a token to its details
const BOUNDS = [0.05, 0.25, 0.6, 0.9]; // probabilities that separate the five tints

/** Shows a streaming answer's tokens. Arrow keys, Home and End move between them; Tab leaves. */
export class TokensView {
  constructor(root) {
    this.root = root;
    this.count = 0;
    root.addEventListener("keydown", (event) => this.move(event));
  }

  update(tokens) {
    for (; this.count < tokens.length; this.count += 1) {
      const element = tokenElement(tokens[this.count], this.count === 0);
      this.root.append(element);
      if (tokens[this.count].token.includes("\n")) this.root.append(make("br"));
    }
  }

  move(event) {
    const tokens = [...this.root.querySelectorAll(".token")];
    const at = tokens.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (at < 0 || to === undefined || !tokens[to]) return;
    event.preventDefault();
    tokens[at].tabIndex = -1;
    tokens[to].tabIndex = 0;
    tokens[to].focus();
  }
}

const tokenData = new WeakMap(); // from an element to its token's log-probabilities

function tokenElement(token, first) {
  const probability = Math.exp(token.logprob);
  const tint = BOUNDS.filter((bound) => probability >= bound).length;
  const element = make("span", {
    class: `token tint${tint}`, role: "button", tabindex: first ? "0" : "-1",
    "aria-label": `${named(token.token)}, ${percent(probability)}`,
  }, visible(token.token));
  tokenData.set(element, token);
  return element;
}

/** Shows the details of the token under the pointer or in focus. Returns a function that hides them and says if it did. */
export function showTokenDetails(area) {
  const panel = byId("token-details");
  let current = null;
  let timer = 0;

  const hide = () => {
    if (!current) return false;
    current.removeAttribute("aria-describedby");
    current = null;
    panel.hidden = true;
    return true;
  };
  const show = (element) => {
    clearTimeout(timer);
    if (element === current) return;
    hide();
    current = element;
    panel.replaceChildren(...detailsOf(tokenData.get(element)));
    panel.hidden = false;
    place(panel, element);
    element.setAttribute("aria-describedby", panel.id);
  };
  const tokenOf = (event) => (tokenData.has(event.target) ? event.target : null);
  const leave = () => {
    clearTimeout(timer);
    timer = setTimeout(hide, HIDE_DELAY);
  };

  area.addEventListener("pointerover", (event) => tokenOf(event) && show(tokenOf(event)));
  area.addEventListener("pointerout", (event) => tokenOf(event) && document.activeElement !== current && leave());
  panel.addEventListener("pointerover", () => clearTimeout(timer));
  panel.addEventListener("pointerout", leave);
  area.addEventListener("focusin", (event) => tokenOf(event) && show(tokenOf(event)));
  area.addEventListener("focusout", (event) => tokenOf(event) && hide());
  area.addEventListener("scroll", () => {
    if (current && current === document.activeElement) place(panel, current);
    else hide();
  }, { passive: true });
  return hide;
}

function detailsOf({ token, logprob, bytes, top_logprobs: others }) {
  const details = [make("p", {}, [
    make("code", {}, visible(token)), ` ${percent(Math.exp(logprob))} `, make("span", { class: "quiet" }, `log ${logprob.toFixed(3).replace("-", "\u2212")}`),
  ])];
  if (token.includes("\ufffd") && bytes) {
    const hex = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    details.push(make("p", { class: "quiet" }, `part of a character: bytes ${hex}`));
  }
  if (others?.length) {
    const rows = others.map((other) => make("tr", { class: other.token === token ? "drawn" : null }, [
      make("td", {}, make("code", {}, visible(other.token))),
      make("td", { class: "number" }, percent(Math.exp(other.logprob))),
    ]));
    details.push(make("table", {}, [make("caption", {}, "Most likely tokens"), make("tbody", {}, rows)]));
  }
  return details;
}

function place(panel, element) {
  const at = element.getClientRects()[0] ?? element.getBoundingClientRect();
  const { width, height } = panel.getBoundingClientRect();
  const above = at.top - height - 6;
  const top = above >= 4 ? above : Math.min(at.bottom + 6, innerHeight - height - 4);
  panel.style.setProperty("left", `${Math.max(4, Math.min(at.left, innerWidth - width - 4))}px`);
  panel.style.setProperty("top", `${top}px`);
}

function percent(probability) {
  if (probability >= 0.9995) return "100%";
  if (probability < 0.0005) return "< 0.1%";
  return `${(100 * probability).toFixed(1)}%`;
}

/** A token's text with visible newlines and tabs. */
function visible(text) {
  return text === "" ? "\u2205" : text.replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5");
}

/** A token's text for a screen reader. */
function named(text) {
  if (text === "") return "special token";
  if (text.trim()) return text.trim();
  return text.includes("\n") ? "new line" : "space";
}

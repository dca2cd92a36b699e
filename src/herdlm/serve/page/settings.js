// System prompt and sampling options: converts the form to request parameters and stores it in the browser.

const STORED = "herdlm.settings";
const KEY = "herdlm.key";
const MAX_STOPS = 16;

// The form's number fields, with the name and range of the parameter.
const NUMBERS = {
  temperature: { name: "temperature", least: 0, most: 2, whole: false },
  top_p: { name: "top_p", least: 0, most: 1, whole: false, above: true },
  top_k: { name: "top_k", least: 0, most: 2 ** 31 - 1, whole: true },
  min_p: { name: "min_p", least: 0, most: 1, whole: false },
  max_tokens: { name: "max_completion_tokens", least: 1, most: 2 ** 31 - 1, whole: true },
  seed: { name: "seed", least: Number.MIN_SAFE_INTEGER, most: Number.MAX_SAFE_INTEGER, whole: true },
};

const TEXTS = [...Object.keys(NUMBERS), "stop", "system"];

/** The settings form. */
export class Settings {
  constructor(form) {
    this.form = form;
    this.wrong = null; // the first invalid field
    this.restore();
    form.addEventListener("input", (event) => {
      this.check();
      if (event.target.name === "key") this.keepKey();
      else this.keep();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  get system() {
    return this.field("system").value.trim();
  }

  get key() {
    return this.field("key").value.trim();
  }

  get probabilities() {
    return this.field("probabilities").checked;
  }

  /** Request parameters: only those that are set. */
  parameters() {
    const parameters = {};
    for (const [field, { name }] of Object.entries(NUMBERS)) {
      const text = this.field(field).value.trim();
      if (text) parameters[name] = Number(text);
    }
    const stop = this.stops();
    if (stop.length) parameters.stop = stop;
    return parameters;
  }

  /** All settings except the key, for an export. */
  values() {
    return { system: this.system, ...this.parameters() };
  }

  /** Marks invalid fields with a message beside them. Returns whether all fields are valid. */
  check() {
    let first = null;
    const mark = (field, problem) => {
      const input = this.field(field);
      const words = this.form.querySelector(`#${field}-problem`);
      words.textContent = problem ?? "";
      if (problem) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      if (problem) first ??= input;
    };
    for (const [field, bounds] of Object.entries(NUMBERS)) mark(field, problemOf(this.field(field).value.trim(), bounds));
    mark("stop", this.stops().length > MAX_STOPS ? `Enter at most ${MAX_STOPS} lines.` : null);
    this.wrong = first;
    return first === null;
  }

  /** Clears all settings except the key. */
  reset() {
    for (const field of TEXTS) this.field(field).value = "";
    this.field("probabilities").checked = false;
    this.check();
    this.keep();
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  stops() {
    const lines = this.field("stop").value.split("\n").filter((line) => line !== "");
    return lines.map((line) => line.replace(/\\([nt\\])/g, (_, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter]));
  }

  keep() {
    const values = Object.fromEntries(TEXTS.map((name) => [name, this.field(name).value]));
    const all = JSON.stringify({ ...values, probabilities: this.probabilities });
    attempt(() => localStorage.setItem(STORED, all));
  }

  keepKey() {
    attempt(() => sessionStorage.setItem(KEY, this.key));
  }

  restore() {
    let stored = {};
    attempt(() => {
      stored = JSON.parse(localStorage.getItem(STORED)) ?? {};
    });
    attempt(() => {
      this.field("key").value = sessionStorage.getItem(KEY) ?? "";
    });
    for (const name of TEXTS) {
      if (typeof stored[name] === "string") this.field(name).value = stored[name];
    }
    this.field("probabilities").checked = stored.probabilities === true;
    this.check();
  }
}

function problemOf(text, { least, most, whole, above }) {
  if (!text) return null;
  const value = Number(text);
  if (!Number.isFinite(value)) return "Enter a number.";
  if (whole && !Number.isInteger(value)) return "Enter a whole number.";
  if (value < least || (above && value === least)) return above ? `Enter a number above ${least}.` : `Enter at least ${least}.`;
  return value > most ? `Enter at most ${most}.` : null;
}

/** Runs a storage access. If storage is full or forbidden, settings last until the page is closed. */
function attempt(store) {
  try {
    store();
  } catch (error) {
    console.warn("not stored:", error.name);
  }
}

"use strict";
// What every page needs: elements, light and dark.

const by = (id) => document.getElementById(id);

function element(name, text, classes = "") {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

const GONE = "socklab serve does not answer; is it still running?";

// A page from a file may have no storage; then a choice is for this time only.
const kept = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      // for this time only
    }
  },
};

const theme = {
  changed() {}, // what has to be drawn again

  get now() {
    return document.documentElement.dataset.theme;
  },

  show(which) {
    document.documentElement.dataset.theme = which;
    this.changed();
  },

  begin(changed = () => {}) {
    this.changed = changed;
    this.show(kept.get("socklab-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    by("theme").addEventListener("click", () => {
      this.show(this.now === "dark" ? "light" : "dark");
      kept.set("socklab-theme", this.now);
    });
  },
};

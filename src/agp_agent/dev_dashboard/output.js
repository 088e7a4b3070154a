// Output with its colours, put into the page as text alone: stands before page.js in the one script of the page.
"use strict";
const SHOWN_CHARS = 1000000; // of a running task's output; older ones give way

// What would steer a terminal, or turn the direction of text, is spelled out.
const STEERS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;
const visible = (text) => text.replaceAll("\r\n", "\n").replace(STEERS, (char) =>
  char.charCodeAt(0) < 256 ? `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}` : `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

class Terminal {
  // Colours and weights are shown, other sequences left out; a lone carriage return begins its line again.
  constructor(screen) {
    this.screen = screen;
    this.style = {};
    this.rest = "";
    this.waiting = [];
    this.waitingChars = 0;
    this.shownChars = 0;
    this.droppedChars = 0;
    this.line = []; // the nodes of the last line
    this.note = null;
  }

  write(text) {
    this.waiting.push(text);
    this.waitingChars += text.length;
    while (this.waiting.length > 1 && this.waitingChars - this.waiting[0].length >= SHOWN_CHARS) {
      const dropped = this.waiting.shift();
      this.waitingChars -= dropped.length;
      this.droppedChars += dropped.length;
    }
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = null;
    const isAtEnd = this.screen.scrollTop + this.screen.clientHeight >= this.screen.scrollHeight - 4;
    let text = this.rest + this.waiting.join("");
    this.waiting = [];
    this.waitingChars = 0;
    const cut = text.slice(-64).match(/(\u001b(\[[0-9;:?]*|\][^\u0007\u001b]*)?|\r)$/); // a sequence that is not whole yet
    this.rest = cut ? cut[0] : "";
    if (cut) text = text.slice(0, -cut[0].length);
    const block = document.createDocumentFragment();
    for (const part of text.replaceAll("\r\n", "\n").split(/(\u001b\[[0-9;:?]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\n|\r)/)) {
      if (part === "\n") { this.add(block, "\n"); this.line = []; }
      else if (part === "\r") { for (const node of this.line) this.forget(node); this.line = []; }
      else if (/^\u001b\[[0-9;:]*m$/.test(part)) this.dress(part.slice(2, -1));
      else if (part && !/^\u001b[[\]]/.test(part)) this.line.push(this.add(block, visible(part)));
    }
    this.screen.append(block);
    this.trim();
    if (isAtEnd) this.screen.scrollTop = this.screen.scrollHeight;
  }

  add(block, text) {
    const { color, back, ...flags } = this.style;
    const names = [color, back, ...Object.keys(flags)].filter(Boolean).join(" ");
    const node = names ? make("span", { class: names }, text) : document.createTextNode(text);
    block.append(node);
    this.shownChars += text.length;
    return node;
  }

  forget(node) {
    if (!node.parentNode) return; // trimmed away before its line was begun again
    this.shownChars -= node.textContent.length;
    node.remove();
  }

  trim() {
    while (this.shownChars > SHOWN_CHARS) {
      const oldest = this.note ? this.note.nextSibling : this.screen.firstChild;
      this.droppedChars += oldest.textContent.length;
      this.forget(oldest);
    }
    if (!this.droppedChars) return;
    if (!this.note) this.screen.prepend(this.note = make("span", { class: "quiet" }));
    this.note.textContent = `[dashboard: ${this.droppedChars} characters before this are not shown]\n`;
  }

  dress(codes) {
    const numbers = codes.split(/[;:]/).map(Number);
    for (let at = 0; at < numbers.length; at += 1) {
      const code = numbers[at];
      const is = (low, high) => code >= low && code <= high;
      if (code === 0) this.style = {};
      else if (code === 1) this.style.b = true;
      else if (code === 2) this.style.d = true;
      else if (code === 3) this.style.i = true;
      else if (code === 4) this.style.u = true;
      else if (code === 22) { delete this.style.b; delete this.style.d; }
      else if (code === 23) delete this.style.i;
      else if (code === 24) delete this.style.u;
      else if (is(30, 37) || is(90, 97)) this.style.color = `f${code % 10}`;
      else if (is(40, 47) || is(100, 107)) this.style.back = `g${code % 10}`;
      else if (code === 39) delete this.style.color;
      else if (code === 49) delete this.style.back;
      else if (code === 38 || code === 48) { // of 256 colours and of all those of a screen, the nearest of eight
        const kind = code === 38 ? "color" : "back";
        const near = numbers[at + 1] === 5 ? of256(numbers[at + 2]) : nearest(numbers.slice(at + 2, at + 5));
        this.style[kind] = `${code === 38 ? "f" : "g"}${near}`;
        at += numbers[at + 1] === 5 ? 2 : 4;
      }
    }
  }
}

const nearest = ([red = 0, green = 0, blue = 0]) => (red > 127) + 2 * (green > 127) + 4 * (blue > 127);

function of256(number = 0) {
  if (number < 16) return number % 8;
  if (number > 231) return number > 243 ? 7 : 0;
  const index = number - 16;
  return nearest([Math.floor(index / 36), Math.floor(index / 6) % 6, index % 6].map((part) => part * 51));
}

// The item in the status bar: what the server says of itself, and whether it is on for this editor.

import { languages, MarkdownString, StatusBarAlignment, StatusBarItem, ThemeColor, window } from "vscode";
import { SELECTOR } from "./client";
import { disabledLanguages, enabled } from "./settings";

/** `fimble/status` from the server; `starting` and `missing` are this extension's own. */
export interface Status {
  state: "off" | "loading" | "idle" | "working" | "error" | "starting" | "missing";
  message: string;
  progress?: number;
}

const ICONS = {
  off: "circle-slash",
  loading: "loading~spin",
  starting: "loading~spin",
  idle: "edit",
  working: "sync~spin",
  error: "error",
  missing: "error",
};
const WORDS = {
  off: "off",
  loading: "loading the model",
  starting: "starting",
  idle: "ready",
  working: "working",
  error: "error",
  missing: "no server",
};

export class StatusItem {
  status: Status = { state: "starting", message: "" };
  private readonly item: StatusBarItem;

  constructor() {
    this.item = window.createStatusBarItem("status", StatusBarAlignment.Right, 100);
    this.item.name = "fimble";
    this.item.command = "fimble.menu";
    this.draw();
    this.item.show();
  }

  show(status: Status): void {
    this.status = status;
    this.draw();
  }

  /** Draws it anew: the status, the settings or the editor have changed. */
  draw(): void {
    const { state, message, progress } = this.shown();
    const share = progress === undefined ? "" : ` ${Math.round(progress * 100)}%`;
    this.item.text = `$(${ICONS[state]}) fimble${share}`;
    const detail = [`fimble: ${WORDS[state]}${share}`, message].filter(Boolean).join(" – ");
    this.item.tooltip = new MarkdownString().appendText(`${detail}\nClick for the menu.`);
    this.item.accessibilityInformation = { label: detail, role: "button" };
    const wrong = state === "error" || state === "missing";
    this.item.backgroundColor = wrong ? new ThemeColor("statusBarItem.errorBackground") : undefined;
  }

  dispose(): void {
    this.item.dispose();
  }

  private shown(): Status {
    const document = window.activeTextEditor?.document;
    if (!enabled(document)) {
      return { state: "off", message: "" };
    }
    const language = document && languages.match(SELECTOR, document) ? document.languageId : undefined;
    if (language && disabledLanguages(document).includes(language)) {
      return { state: "off", message: `for ${language}` };
    }
    return this.status;
  }
}

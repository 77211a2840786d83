// What users can do: VS Code's own commands for what it shows, the server's for what it must know.

import { commands, Disposable, ExtensionContext, LogOutputChannel, QuickPickItem, Uri, window, workspace } from "vscode";
import { Connection } from "./client";
import { install } from "./install";
import { run } from "./run";
import { disabledLanguages, enabled, folderAmongSeveral, toggle, toggleLanguage } from "./settings";
import { StatusItem } from "./status";

const REPORTS = "fimble-report";

/** VS Code's command for each of ours that shows or inserts. */
const EDITOR = {
  accept: "commit",
  acceptNextWord: "acceptNextWord",
  acceptNextLine: "acceptNextLine",
  next: "showNext",
  previous: "showPrevious",
  trigger: "trigger",
};

export function register(
  context: ExtensionContext,
  connection: Connection,
  status: StatusItem,
  log: LogOutputChannel,
): Disposable[] {
  const inline = (name: string) => commands.executeCommand(`editor.action.inlineSuggest.${name}`);
  const reports = new Map<string, string>();

  async function dismiss(): Promise<void> {
    const place = connection.place();
    await inline("hide");
    if (place) {
      await connection.execute("fimble.dismiss", place);
    }
  }

  async function switched(change: Promise<void>): Promise<void> {
    await change;
    await inline("hide");
  }

  async function folder(): Promise<void> {
    await switched(toggle(folderAmongSeveral(window.activeTextEditor?.document)));
  }

  async function language(): Promise<void> {
    const document = window.activeTextEditor?.document;
    if (document) {
      await switched(toggleLanguage(document));
    }
  }

  async function installServer(): Promise<void> {
    if (await install(context, log)) {
      await connection.restart();
    }
  }

  // Shown in an editor of its own, since a terminal would run in the workspace with its environment.
  async function report(name: string): Promise<void> {
    if (!connection.command) {
      return void window.showWarningMessage("fimble: there is no server to ask; install it or set fimble.command.");
    }
    let text = "";
    await run(connection.command, [name], (more) => (text += more));
    const uri = Uri.from({ scheme: REPORTS, path: `fimble ${name}`, query: String(Date.now()) });
    reports.clear();
    reports.set(uri.toString(), text);
    await window.showTextDocument(await workspace.openTextDocument(uri), { preview: true });
  }

  async function menu(): Promise<void> {
    const document = window.activeTextEditor?.document;
    const own = folderAmongSeveral(document);
    const inWorkspace = workspace.workspaceFolders ? " for this workspace" : "";
    const items: (QuickPickItem & { run: () => unknown })[] = [];
    const add = (label: string, run: () => unknown, description = "") => items.push({ label, description, run });
    const turn = (on: boolean) => `Turn ${on ? "off" : "on"}`;
    add(`$(power) ${turn(enabled())}${inWorkspace}`, () => switched(toggle()));
    if (own) {
      add(`$(folder) ${turn(enabled(own))} for the folder ${own.name}`, folder);
    }
    if (document) {
      const { languageId } = document;
      add(`$(code) ${turn(!disabledLanguages(document).includes(languageId))} for ${languageId}`, language);
    }
    if (!connection.command) {
      add("$(cloud-download) Install the server", installServer);
    }
    add("$(debug-restart) Restart the server", () => connection.restart());
    add("$(server-process) Restart the model's worker", () => connection.execute("fimble.restartWorker"));
    add("$(output) Show the log", () => log.show());
    add("$(pulse) Doctor", () => report("doctor"), "checks everything that completions need");
    add("$(graph) Statistics", () => report("stats"), "what became of the suggestions");
    add("$(gear) Settings", () => commands.executeCommand("workbench.action.openSettings", "@ext:fimble.fimble"));
    const placeHolder = [status.status.state, status.status.message].filter(Boolean).join(" – ");
    const chosen = await window.showQuickPick(items, { title: "fimble", placeHolder });
    await chosen?.run();
  }

  const ours: Record<string, () => unknown> = {
    ...Object.fromEntries(Object.entries(EDITOR).map(([name, theirs]) => [name, () => inline(theirs)])),
    dismiss,
    menu,
    toggle: () => switched(toggle()),
    toggleFolder: folder,
    toggleLanguage: language,
    restart: () => connection.restart(),
    restartModel: () => connection.execute("fimble.restartWorker"),
    showLog: () => log.show(),
    doctor: () => report("doctor"),
    statistics: () => report("stats"),
    install: installServer,
  };
  return [
    workspace.registerTextDocumentContentProvider(REPORTS, {
      provideTextDocumentContent: (uri) => reports.get(uri.toString()) ?? "",
    }),
    ...Object.entries(ours).map(([name, action]) => commands.registerCommand(idOf(name), action)),
  ];
}

// The server registers `fimble.accept` and `fimble.dismiss` itself, once it runs; these are the editor's.
function idOf(name: string): string {
  return name === "menu" ? "fimble.menu" : `fimble.editor.${name}`;
}

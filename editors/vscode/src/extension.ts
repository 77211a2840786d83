// A thin client: the server decides what is suggested, VS Code shows it.

import { commands, Event, ExtensionContext, window, workspace } from "vscode";
import { Connection } from "./client";
import { register } from "./commands";
import { findServer } from "./server";
import { StatusItem } from "./status";

let connection: Connection;

/** Returns before the server runs: nothing here waits for another process. */
export function activate(context: ExtensionContext): { onTrace: Event<object> } {
  const log = window.createOutputChannel("fimble", { log: true });
  const status = new StatusItem();
  connection = new Connection(context, log, (news) => {
    const missing = news.state === "missing" && status.status.state !== "missing";
    status.show(news);
    if (missing) {
      void offer(news.message);
    }
  });
  context.subscriptions.push(
    log,
    status,
    connection,
    ...register(context, connection, status, log),
    window.onDidChangeActiveTextEditor(() => status.draw()),
    window.onDidChangeTextEditorSelection(({ textEditor }) => {
      if (textEditor === window.activeTextEditor) {
        connection.moved();
      }
    }),
    workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("fimble.command")) {
        void connection.restart();
      }
      if (change.affectsConfiguration("fimble")) {
        status.draw();
      }
    }),
    workspace.onDidGrantWorkspaceTrust(() => connection.restart()),
    workspace.onDidChangeWorkspaceFolders(() => {
      if (!connection.command && findServer(context)) {
        void connection.restart();
      }
    }),
  );
  void connection.restart();
  return { onTrace: connection.traces.event };
}

export async function deactivate(): Promise<void> {
  await connection?.stop();
}

async function offer(reason: string): Promise<void> {
  const choice = await window.showWarningMessage(`fimble: ${reason}`, "Install it", "Set its path");
  if (choice === "Install it") {
    await commands.executeCommand("fimble.editor.install");
  } else if (choice) {
    await commands.executeCommand("workbench.action.openSettings", "fimble.command");
  }
}

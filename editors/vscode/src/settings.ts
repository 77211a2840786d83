// What the user has set, and nothing else: what they have not set is left to the server and to their own settings file.

import { ConfigurationTarget, ExtensionContext, workspace } from "vscode";

const OURS = ["command", "installFrom"]; // for this extension; the server does not know them

/** The section `fimble` as the server is to have it. Only declared settings pass: a folder can't slip in others. */
export function section(context: ExtensionContext): Record<string, unknown> {
  const declared: object = context.extension.packageJSON.contributes.configuration.properties;
  const names = Object.keys(declared).map((name) => name.slice("fimble.".length));
  const config = workspace.getConfiguration("fimble");
  const set = names.filter((name) => {
    const places = config.inspect(name);
    return places?.globalValue !== undefined || places?.workspaceValue !== undefined;
  });
  return Object.fromEntries(set.filter((name) => !OURS.includes(name)).map((name) => [name, config.get(name)]));
}

export function enabled(): boolean {
  return workspace.getConfiguration("fimble").get("enabled", true);
}

export function disabledLanguages(): string[] {
  return workspace.getConfiguration("fimble").get<string[]>("disabledLanguages", []);
}

/** Switches completions for this workspace, or for the user where none is open. */
export async function toggle(): Promise<void> {
  const target = workspace.workspaceFolders ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await workspace.getConfiguration("fimble").update("enabled", !enabled(), target);
}

/** Switches completions for a language: where the workspace has its own list there, else for the user. */
export async function toggleLanguage(language: string): Promise<void> {
  const config = workspace.getConfiguration("fimble");
  const inWorkspace = config.inspect("disabledLanguages")?.workspaceValue !== undefined;
  const others = disabledLanguages().filter((name) => name !== language);
  const list = others.length < disabledLanguages().length ? others : [...others, language];
  const target = inWorkspace ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await config.update("disabledLanguages", list.length ? list : inWorkspace ? [] : undefined, target);
}

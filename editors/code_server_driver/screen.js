// In the page: what the workbench shows, and each painted frame of it.
(() => {
  const text = (node) => node.textContent.replaceAll("\u00a0", " ").replaceAll("\u200c", "").replaceAll("\u200b", "");
  const inOrder = (nodes) => [...nodes].sort((a, b) => parseFloat(a.style.top || 0) - parseFloat(b.style.top || 0));
  const GHOST = ".ghost-text-decoration, .ghost-text-decoration-preview, .ghost-text";

  function ghostOf(line) {
    return [...line.querySelectorAll(GHOST)].filter((e) => !e.parentElement.closest(GHOST)).map(text).join("");
  }

  function editor() {
    const root = document.querySelector(".editor-group-container.active .monaco-editor[data-uri]");
    if (!root) {
      return { lines: [], ghost: "" };
    }
    const lines = [...root.querySelectorAll(".view-lines > .view-line"), ...root.querySelectorAll(".suggest-preview-text .view-line, .ghost-text-multiline .view-line")];
    const rows = lines
      .map((line) => ({ top: line.getBoundingClientRect().top, text: text(line).trimEnd(), ghost: ghostOf(line) || (line.closest(".suggest-preview-text, .ghost-text-multiline") ? text(line) : "") }))
      .sort((a, b) => a.top - b.top);
    return { lines: rows.map((row) => row.text), ghost: rows.map((row) => row.ghost.trimEnd()).filter(Boolean).join("\n") };
  }

  window.screen = () => ({
    ...editor(),
    status: [...document.querySelectorAll('[id="fimble.fimble.status"]')].map((item) => text(item).trim() + "|" + [...item.querySelectorAll(".codicon")].map((i) => i.className).join(" ") + "|" + (item.getAttribute("aria-label") ?? item.querySelector("[aria-label]")?.getAttribute("aria-label") ?? "")).join(),
    messages: [...document.querySelectorAll(".notification-list-item-message")].map(text),
    menu: [...document.querySelectorAll(".quick-input-widget .monaco-list-row .label-name")].filter((entry) => entry.offsetParent).map(text),
  });

  window.record = () => {
    window.recorded = [];
    const id = (window.recording = {});
    const look = (time) => {
      if (window.recording !== id) return;
      const frame = editor();
      const last = window.recorded.at(-1);
      if (!last || JSON.stringify(last.lines) !== JSON.stringify(frame.lines) || last.ghost !== frame.ghost) {
        window.recorded.push({ ...frame, time });
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  };
})();

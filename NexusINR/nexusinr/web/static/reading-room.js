// What only the page can do: keys, files that are dropped or chosen, and sending them.

(() => {
  "use strict";

  const KEYS = new Set(["1", "2", "3", "4", "s", "m", "c", "b", " ", "v", "l", "f", "w", "p", "?",
    "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown"]);
  let hovered = "";

  // --- keys ---------------------------------------------------------------------------------

  document.addEventListener("mouseover", (event) => {
    const item = event.target.closest?.(".layout-grid-item");
    if (item) hovered = item.querySelector("[data-view]")?.dataset.view ?? "";
  });

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, [role=slider], [role=listbox]");
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !KEYS.has(key)) return;
    event.preventDefault();
    if (document.activeElement instanceof HTMLButtonElement) document.activeElement.blur();
    window.trame.trigger("nexusinr_key", [key, hovered]);
  });

  // --- files --------------------------------------------------------------------------------

  const send = (file, sent, total) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "upload");
    request.setRequestHeader("X-File-Name", encodeURIComponent(file.name));
    request.upload.onprogress = ({ loaded }) => tell(sent + loaded, total);
    request.onload = () => request.status < 400
      ? resolve() : reject(new Error(`the viewer answered ${request.status}`));
    request.onerror = () => reject(new Error("the connection was lost"));
    request.send(file);
  });

  let told = 0;
  const tell = (sent, total) => {
    if (Date.now() - told < 250) return;
    told = Date.now();
    const percent = total ? Math.floor((100 * sent) / total) : 100;
    window.trame.state.set("OpenState__busy", `Sending ${percent} %`);
  };

  const sendAll = async (files) => {
    const total = files.reduce((sum, file) => sum + file.size, 0);
    let sent = 0;
    let problem = "";
    try {
      for (const file of files) {
        await send(file, sent, total);
        sent += file.size;
      }
    } catch (error) {
      problem = `The files could not be sent: ${error.message}.`;
    }
    await window.trame.trigger("nexusinr_sent", [problem]);
  };

  const choose = (folder) => {
    const input = document.createElement("input");
    input.type = "file";
    input.multiple = true;
    input.webkitdirectory = folder;
    input.onchange = () => sendAll([...input.files]);
    input.click();
  };

  const filesOf = async (entry) => {
    if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((done, fail) => reader.readEntries(done, fail));
      if (!some.length) return found;
      for (const inner of some) found.push(...(await filesOf(inner)));
    }
  };

  const hover = (on) => document.querySelector(".nx-drop")?.classList.toggle("nx-over", on);

  document.addEventListener("dragenter", (event) => {
    if (event.dataTransfer.types.includes("Files")) hover(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) hover(false); // they have left the page
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    hover(false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    const files = await Promise.all(entries.filter(Boolean).map(filesOf));
    if (files.flat().length) await sendAll(files.flat());
  });

  window.nexusinr = { choose };
})();

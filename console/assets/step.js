// @ts-check
// Steps through a call's event log without reloading: buttons, numbers in the list, and arrow keys.

/** @param {(to: string) => Promise<void>} go shows another view of this page */
export function stepThrough(go) {
  const stepper = () => /** @type {HTMLElement | null} */ (document.querySelector("#replay .stepper"));
  // The requested step, which is ahead of the shown one while a key is held down.
  let wanted = 0;
  let busy = false;

  /** @param {number} step @param {string} [by] the button that was pressed */
  async function to(step, by) {
    const last = Number(stepper()?.dataset.steps ?? 0);
    wanted = Math.min(Math.max(step, 1), last);
    if (busy || !last) return;
    busy = true;
    try {
      for (let shown = 0; shown !== wanted;) {
        shown = wanted;
        await go(`?${new URLSearchParams({ ...Object.fromEntries(new URLSearchParams(location.search)), step: String(shown) })}`);
        scrollIntoList();
      }
    } finally { busy = false; wanted = 0; }
    if (by) {
      // At either end the button does not exist.
      const place = stepper()?.querySelector(`a[data-to="${by}"]`) ?? stepper()?.querySelector("a[rel]");
      if (place instanceof HTMLElement) place.focus({ preventScroll: true });
    }
  }

  /** Scrolls the step into view, within the list only. */
  function scrollIntoList() {
    const list = document.querySelector("#replay .step-list");
    const row = list?.querySelector("[aria-current=step]");
    if (!(list instanceof HTMLElement) || !(row instanceof HTMLElement)) return;
    const head = list.querySelector("thead")?.clientHeight ?? 0;
    const [above, below] = [row.offsetTop - head, row.offsetTop + row.offsetHeight];
    if (above < list.scrollTop) list.scrollTop = above;
    else if (below > list.scrollTop + list.clientHeight) list.scrollTop = Math.min(above, below - list.clientHeight);
  }

  const now = () => wanted || Number(stepper()?.dataset.step ?? 0);
  /** @param {string} where */
  const number = (where) => ({ first: 1, back: now() - 1, forward: now() + 1 })[where] ?? Number(where);

  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("#replay a[data-to]") : null;
    if (!(link instanceof HTMLElement) || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const where = link.dataset.to ?? "";
    void to(number(where), where);
  });

  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const replay = document.getElementById("replay");
    if (!replay || document.querySelector("dialog[open]")) return;
    // Leave the arrow keys to fields, audio players and wide tables.
    const place = document.activeElement;
    const box = replay.getBoundingClientRect();
    const seen = box.top < innerHeight * 0.75 && box.bottom > innerHeight * 0.25;
    if (!(place && replay.contains(place)) && !((!place || place === document.body) && seen)) return;
    event.preventDefault();
    const button = place instanceof HTMLElement && place.closest(".stepper") ? place.dataset.to : undefined;
    void to(now() + by, button);
  });
  scrollIntoList();
}

// @ts-check
// <offhook-template>: shows the values of a message template in its preview while they are entered.

class Template extends HTMLElement {
  connectedCallback() {
    this.addEventListener("input", () => {
      for (const mark of this.marks()) mark.textContent = this.value(mark) || (mark.dataset.empty ?? "");
    });
  }

  marks() { return /** @type {NodeListOf<HTMLElement>} */ (this.querySelectorAll("mark[data-of]")); }

  /** @param {HTMLElement} mark */
  value(mark) {
    const input = this.querySelector(`input[name="${mark.dataset.of}"]`);
    return input instanceof HTMLInputElement ? input.value.trim() : "";
  }
}
customElements.define("offhook-template", Template);

// @ts-check
// <offhook-sign-up>: submits the result of Meta's sign-up dialog, and closes the window that was opened for it.

class SignUp extends HTMLElement {
  connectedCallback() {
    if (this.dataset.done === undefined) this.querySelector("form")?.requestSubmit();
    else if (window.opener && window.name === "offhook-sign-up") window.close();
  }
}
customElements.define("offhook-sign-up", SignUp);

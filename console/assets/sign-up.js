// @ts-check
// <offhook-sign-up>: what Meta's window brought is taken in at once, and the window that was opened for it goes.

class SignUp extends HTMLElement {
  connectedCallback() {
    if (this.dataset.done === undefined) this.querySelector("form")?.requestSubmit();
    else if (window.opener && window.name === "offhook-sign-up") window.close();
  }
}
customElements.define("offhook-sign-up", SignUp);

// @ts-check
// <offhook-waveform>: the waveform of a recording above its player. A click seeks. The player works without it.

class Waveform extends HTMLElement {
  async connectedCallback() {
    const audio = this.querySelector("audio");
    if (!audio || !this.dataset.src) return;
    let sound;
    try {
      const answer = await fetch(this.dataset.src);
      const context = new OfflineAudioContext(1, 1, 16000);
      sound = await context.decodeAudioData(await answer.arrayBuffer());
    } catch { return; }
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    this.prepend(canvas);
    const draw = () => this.draw(canvas, sound, audio.duration ? audio.currentTime / audio.duration : 0);
    canvas.addEventListener("click", (event) => {
      audio.currentTime = (event.offsetX / canvas.clientWidth) * sound.duration;
      draw();
    });
    audio.addEventListener("timeupdate", draw);
    new ResizeObserver(draw).observe(canvas);
    draw();
  }

  /** @param {HTMLCanvasElement} canvas @param {AudioBuffer} sound @param {number} played */
  draw(canvas, sound, played) {
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    if (!pen || !width) return;
    pen.scale(scale, scale);
    // Colours of the played part and the rest, from the style sheet.
    const { color, caretColor } = getComputedStyle(canvas);
    const samples = sound.getChannelData(0);
    const bars = Math.floor(width / 4);
    const each = Math.max(1, Math.floor(samples.length / bars));
    for (let bar = 0; bar < bars; bar += 1) {
      let peak = 0;
      for (let n = bar * each; n < (bar + 1) * each; n += 16) peak = Math.max(peak, Math.abs(samples[n] ?? 0));
      const tall = Math.max(2, Math.sqrt(peak) * height * 0.9);
      pen.fillStyle = bar / bars < played ? color : caretColor;
      pen.fillRect(bar * 4, (height - tall) / 2, 2.5, tall);
    }
  }
}
customElements.define("offhook-waveform", Waveform);

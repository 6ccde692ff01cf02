// A phone for an endpoint: a minimal client of the protocol in docs/phone.md, one call at a time.
const at = (id) => document.getElementById(id);
const phone = { socket: null, session: null, call: null, peer: null, muted: false, held: false };

at('url').value = location.protocol.startsWith('http')
  ? `${location.protocol.replace('http', 'ws')}//${location.host}/phone` : 'ws://127.0.0.1:8080/phone';
for (const key of '123456789*0#') {
  const button = document.createElement('button');
  button.textContent = key;
  button.onclick = () => phone.call && send({ type: 'digits', call: phone.call, digits: key });
  at('keys').append(button);
}

function show(text) {
  at('state').textContent = text;
  at('log').append(Object.assign(document.createElement('li'), { textContent: text }));
}

const send = (message) => phone.socket?.send(JSON.stringify(message));
function enable(...ids) {
  for (const id of ['accept', 'reject', 'hangup', 'mute', 'hold']) at(id).disabled = !ids.includes(id);
}

function register() {
  phone.socket?.close();
  const socket = phone.socket = new WebSocket(at('url').value);
  const [endpoint, password] = [at('endpoint').value, at('password').value];
  socket.onopen = () => send({ type: 'register', endpoint, password, resume: phone.session ?? undefined });
  socket.onmessage = (event) => handle(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (socket !== phone.socket) return;
    const text = `not registered: ${event.reason || event.code}`;
    // A lost connection does not end the call: its audio goes on, and the node waits for `resume`.
    const resumes = phone.call && event.code === 1006;
    if (phone.peer && !resumes) endCall(text); else show(text);
    if (resumes) setTimeout(register, 1000);
  };
}

// Opens the microphone and creates a WebRTC offer with it.
async function offer() {
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } });
  const peer = phone.peer = new RTCPeerConnection();
  peer.addTrack(microphone.getTracks()[0], microphone);
  peer.ontrack = ({ track }) => {
    const stream = new MediaStream([track]);
    at('sound').srcObject = stream;
    meter(stream);
  };
  await peer.setLocalDescription();
  return peer.localDescription.sdp;
}

function meter(stream) {
  const context = new AudioContext();
  const analyser = context.createMediaStreamSource(stream).connect(context.createAnalyser());
  const samples = new Float32Array(analyser.fftSize);
  const update = () => {
    if (stream.getTracks()[0].readyState === 'ended') return context.close();
    analyser.getFloatTimeDomainData(samples);
    at('level').value = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    requestAnimationFrame(update);
  };
  update();
}

function endCall(text) {
  for (const sender of phone.peer?.getSenders() ?? []) sender.track?.stop();
  phone.peer?.close();
  Object.assign(phone, { call: null, peer: null, muted: false, held: false });
  at('mute').textContent = 'Mute';
  at('hold').textContent = 'Hold';
  enable();
  show(text);
}

async function handle(message) {
  switch (message.type) {
    case 'registered':
      phone.session = message.session;
      if (phone.call && !message.calls.includes(phone.call)) endCall('ended');
      return show(`registered as ${message.sip_uri}`);
    case 'ring':
      if (phone.call || phone.peer) return send({ type: 'reject', call: message.call });
      phone.call = message.call;
      enable('accept', 'reject');
      return show(`${message.caller_name || message.from} is calling`);
    case 'calling':
      phone.call = message.call;
      enable('hangup');
      return show('calling');
    case 'answer':
      await phone.peer?.setRemoteDescription({ type: 'answer', sdp: message.sdp });
      return enable('hangup', 'mute', 'hold');
    case 'cancelled':
      return phone.call === message.call && endCall(`cancelled: ${message.why}`);
    case 'ended':
      return phone.call === message.call && endCall(`ended: ${message.name} (${message.code}, ${message.source})`);
    case 'error':
      if (phone.peer && (!phone.call || message.code === 'not_ringing')) endCall(message.message);
      return show(`${message.code}: ${message.message}`);
    default:
      return show(message.type);
  }
}

at('login').onsubmit = (event) => { event.preventDefault(); register(); };
at('dial').onsubmit = async (event) => {
  event.preventDefault();
  if (!phone.peer) send({ type: 'call', to: at('to').value, sdp: await offer() });
};
at('accept').onclick = async () => {
  enable('hangup');
  send({ type: 'accept', call: phone.call, sdp: await offer() });
  show('in a call');
};
at('reject').onclick = () => send({ type: 'reject', call: phone.call });
at('hangup').onclick = () => send({ type: 'hangup', call: phone.call });
function toggle(button, word, flag) {
  phone[flag] = !phone[flag];
  send({ type: (phone[flag] ? '' : 'un') + word, call: phone.call });
  button.textContent = (phone[flag] ? 'Un' : '') + (phone[flag] ? word : word[0].toUpperCase() + word.slice(1));
}
at('mute').onclick = (event) => {
  toggle(event.target, 'mute', 'muted');
  for (const sender of phone.peer.getSenders()) sender.track.enabled = !phone.muted;
};
at('hold').onclick = (event) => { toggle(event.target, 'hold', 'held'); at('sound').muted = phone.held; };

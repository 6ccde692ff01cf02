// An endpoint's phone: the protocol of docs/phone.md in a page, nothing else. One call at a time.
const at = (id) => document.getElementById(id);
const phone = { socket: null, session: null, call: null, peer: null, muted: false, held: false };

at('url').value = location.protocol.startsWith('http')
  ? `${location.protocol.replace('http', 'ws')}//${location.host}/phone` : 'ws://127.0.0.1:8080/phone';
for (const key of '123456789*0#') {
  const button = document.createElement('button');
  button.textContent = key;
  button.onclick = () => phone.call && say({ type: 'digits', call: phone.call, digits: key });
  at('keys').append(button);
}

function show(text) {
  at('state').textContent = text;
  at('log').append(Object.assign(document.createElement('li'), { textContent: text }));
}

const say = (message) => phone.socket?.send(JSON.stringify(message));
function enable(...ids) {
  for (const id of ['accept', 'reject', 'hangup', 'mute', 'hold']) at(id).disabled = !ids.includes(id);
}

function register() {
  phone.socket?.close();
  const socket = phone.socket = new WebSocket(at('url').value);
  const [endpoint, password] = [at('endpoint').value, at('password').value];
  socket.onopen = () => say({ type: 'register', endpoint, password, resume: phone.session ?? undefined });
  socket.onmessage = (event) => hear(JSON.parse(event.data));
  socket.onclose = (event) => {
    if (socket !== phone.socket) return;
    show(`not registered: ${event.reason || event.code}`);
    // Cut off in a call: its sound goes on, and the node waits for us for a while.
    if (phone.call && event.code === 1006) setTimeout(register, 1000);
  };
}

// The microphone, and a connection that offers it.
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
  const look = () => {
    if (stream.getTracks()[0].readyState === 'ended') return context.close();
    analyser.getFloatTimeDomainData(samples);
    at('level').value = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    requestAnimationFrame(look);
  };
  look();
}

function over(text) {
  for (const sender of phone.peer?.getSenders() ?? []) sender.track?.stop();
  phone.peer?.close();
  Object.assign(phone, { call: null, peer: null, muted: false, held: false });
  at('mute').textContent = 'Mute';
  at('hold').textContent = 'Hold';
  enable();
  show(text);
}

async function hear(told) {
  switch (told.type) {
    case 'registered':
      phone.session = told.session;
      if (phone.call && !told.calls.includes(phone.call)) over('the call is over');
      return show(`registered as ${told.sip_uri}`);
    case 'ring':
      if (phone.call || phone.peer) return say({ type: 'reject', call: told.call });
      phone.call = told.call;
      enable('accept', 'reject');
      return show(`${told.caller_name || told.from} calls`);
    case 'calling':
      phone.call = told.call;
      enable('hangup');
      return show('calling');
    case 'answer':
      await phone.peer?.setRemoteDescription({ type: 'answer', sdp: told.sdp });
      return enable('hangup', 'mute', 'hold');
    case 'cancelled':
      return phone.call === told.call && over(`it rings no longer: ${told.why}`);
    case 'ended':
      return phone.call === told.call && over(`ended: ${told.name} (${told.code}, ${told.source})`);
    case 'error':
      if (phone.peer && (!phone.call || told.code === 'not_ringing')) over(told.message);
      return show(`${told.code}: ${told.message}`);
    default:
      return show(told.type);
  }
}

at('login').onsubmit = (event) => { event.preventDefault(); register(); };
at('dial').onsubmit = async (event) => {
  event.preventDefault();
  if (!phone.peer) say({ type: 'call', to: at('to').value, sdp: await offer() });
};
at('accept').onclick = async () => {
  enable('hangup');
  say({ type: 'accept', call: phone.call, sdp: await offer() });
};
at('reject').onclick = () => say({ type: 'reject', call: phone.call });
at('hangup').onclick = () => say({ type: 'hangup', call: phone.call });
function toggle(button, word, flag) {
  phone[flag] = !phone[flag];
  say({ type: (phone[flag] ? '' : 'un') + word, call: phone.call });
  button.textContent = (phone[flag] ? 'Un' : '') + (phone[flag] ? word : word[0].toUpperCase() + word.slice(1));
}
at('mute').onclick = (event) => {
  toggle(event.target, 'mute', 'muted');
  for (const sender of phone.peer.getSenders()) sender.track.enabled = !phone.muted;
};
at('hold').onclick = (event) => { toggle(event.target, 'hold', 'held'); at('sound').muted = phone.held; };

"""A caller with aiortc: sends an offer, applies the answer, listens. Exchanges JSON lines with the test that started it."""

import array
import asyncio
import json
import sys

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack


def tell(**what):
    print(json.dumps(what), flush=True)


async def main():
    pc = RTCPeerConnection()
    pc.addTrack(AudioStreamTrack())
    heard = asyncio.Queue()

    @pc.on("track")
    def on_track(track):
        heard.put_nowait(track)

    @pc.on("connectionstatechange")
    def on_state():
        tell(state=pc.connectionState)

    await pc.setLocalDescription(await pc.createOffer())
    tell(offer=pc.localDescription.sdp)
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await pc.setRemoteDescription(RTCSessionDescription(sdp=json.loads(line)["answer"], type="answer"))
    track = await asyncio.wait_for(heard.get(), 20)
    loud = 0
    for _ in range(250):  # five seconds of 20 ms frames
        frame = await asyncio.wait_for(track.recv(), 20)
        samples = array.array("h", bytes(frame.planes[0]))
        if sum(s * s for s in samples) > 300 * 300 * len(samples):
            loud += 1
    tell(loud_frames=loud)
    await pc.close()


asyncio.run(main())

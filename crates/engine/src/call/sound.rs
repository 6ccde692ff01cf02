//! Explains missing audio to operators, and rates the audio quality of a call.
//!
//! No I/O except for metrics. The leg measures (`media::{quality, watchdog}`), and the record
//! stores the result (`model::CallQuality`).

use std::time::Duration;

use media::{MissingStep, Quality, StreamStats};
use model::metric;
use model::{CallQuality, DirectionQuality};

/// Returns a remark about a media step that is missing after `waited`, with its remedy.
pub(super) fn remark(missing: MissingStep, waited: Duration, checking: bool) -> String {
    let after = format!("{} s after the call was accepted", waited.as_secs());
    match (missing, checking) {
        (MissingStep::Check, true) => format!(
            "{after} no ICE check of the node was answered, so there is no sound: let UDP out to Meta's addresses and their \
             answers in at the port of listen.media, and see that public.media_ips is the address that packets really leave from"
        ),
        (MissingStep::Check, false) => format!(
            "{after} no ICE check has come, so there is no sound: open the port of listen.media (and those above it, as \
             many as listen.media_ports) for UDP in firewall and security group, forward them where there is NAT, and set \
             public.media_ips to the address that the other side can reach"
        ),
        (MissingStep::Handshake, _) => format!(
            "{after} ICE has a path but the DTLS handshake is not done, so there is no sound: something on the way drops \
             DTLS or packets over 1,200 bytes; look at firewalls that inspect UDP, at the MTU of tunnels, and whether a \
             second node answers at the same address"
        ),
        (MissingStep::Packet, _) => format!(
            "{after} media is up but no packet of sound has come: the other side is muted or sends nothing, or a firewall \
             lets the handshake through and not RTP; compare rtp in and out in the log, and try another network"
        ),
        (MissingStep::Fingerprint, _) => {
            "the peer's DTLS certificate does not match the fingerprint in its SDP, so no sound is taken \
             from it: another server answers at its address, or the SDP was altered on its way"
                .to_owned()
        }
    }
}

/// Increments the metric of calls without audio, labelled with the step that did not happen.
pub(super) fn count_missing(missing: MissingStep) {
    metrics::counter!(metric::MEDIA_MISSING_TOTAL, "what" => missing.as_str()).increment(1);
}

/// Returns the quality for the record. `None` if nothing was measured.
pub(super) fn quality(measured: &Quality) -> Option<CallQuality> {
    let way = |way: &StreamStats| {
        let mos = measured.mos(way)?;
        Some(DirectionQuality {
            packets: way.packets,
            loss_percent: rounded(way.loss() * 100.0),
            jitter_ms: rounded(way.jitter.as_secs_f32() * 1_000.0),
            r_factor: rounded(measured.r_factor(way)),
            mos: rounded(mos),
        })
    };
    let quality = CallQuality {
        inbound: way(&measured.inbound),
        outbound: way(&measured.outbound),
        round_trip_ms: measured.round_trip.map(|trip| rounded(trip.as_secs_f32() * 1_000.0)),
    };
    (quality.inbound.is_some() || quality.outbound.is_some()).then_some(quality)
}

/// Rounds to two decimals.
fn rounded(n: f32) -> f64 {
    (f64::from(n) * 100.0).round() / 100.0
}

/// Adds a call's quality to the metrics.
pub(super) fn observe(quality: &CallQuality) {
    for (direction, way) in
        [(metric::packets::IN, &quality.inbound), (metric::packets::OUT, &quality.outbound)]
    {
        if let Some(way) = way {
            metrics::histogram!(metric::MEDIA_LOSS_RATIO, "direction" => direction)
                .record(way.loss_percent / 100.0);
            metrics::histogram!(metric::MEDIA_JITTER_SECONDS, "direction" => direction)
                .record(way.jitter_ms / 1_000.0);
            metrics::histogram!(metric::MEDIA_MOS, "direction" => direction).record(way.mos);
        }
    }
    if let Some(trip) = quality.round_trip_ms {
        metrics::histogram!(metric::MEDIA_ROUND_TRIP_SECONDS).record(trip / 1_000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remark_names_the_missing_step_and_the_remedy() {
        for missing in [MissingStep::Check, MissingStep::Handshake, MissingStep::Packet] {
            for checking in [true, false] {
                let text = remark(missing, Duration::from_secs(3), checking);
                assert!(text.starts_with("3 s after the call was accepted"), "{text}");
                assert!(text.contains("firewall") || text.contains("public.media_ips"), "{text}");
            }
        }
        let text = remark(MissingStep::Fingerprint, Duration::ZERO, true);
        assert!(text.contains("certificate does not match the fingerprint in its SDP"), "{text}");
        assert_ne!(
            remark(MissingStep::Check, Duration::ZERO, true),
            remark(MissingStep::Check, Duration::ZERO, false)
        );
    }

    #[test]
    fn unmeasured_quality_is_not_in_the_record() {
        assert_eq!(quality(&Quality::default()), None);
        let inbound =
            StreamStats { packets: 1_000, lost: 25, jitter: Duration::from_micros(7_130) };
        let kept = quality(&Quality { inbound, ..Quality::default() }).expect("one way");
        let way = kept.inbound.expect("inbound");
        assert_eq!((way.packets, way.loss_percent, way.jitter_ms), (1_000, 2.5, 7.13));
        assert!(way.mos > 4.0 && way.mos < 4.5, "{}", way.mos);
        assert_eq!((kept.outbound, kept.round_trip_ms), (None, None));
    }
}

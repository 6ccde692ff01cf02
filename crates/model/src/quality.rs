//! Audio quality of a call, as its record stores it.

use serde::{Deserialize, Serialize};

/// Audio quality of one direction of a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DirectionQuality {
    /// Packets sent, as counted by the receiver from sequence numbers.
    pub packets: u64,
    /// Share of these packets that were lost, in per cent.
    pub loss_percent: f64,
    /// Interarrival jitter (RFC 3550) at the end of the call, in milliseconds.
    pub jitter_ms: f64,
    /// Rating factor of the E-model (ITU-T G.107) for the loss and delay, 0 to 93.2.
    pub r_factor: f64,
    /// Mean opinion score, 1 to 4.5, estimated from the rating factor.
    pub mos: f64,
}

/// Audio quality of a call in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CallQuality {
    /// Audio from the user to the node, measured by the node.
    pub inbound: Option<DirectionQuality>,
    /// Audio from the node to the user, as reported by the user's side.
    pub outbound: Option<DirectionQuality>,
    /// Round-trip time in milliseconds, from the reports of the user's side. `None` without
    /// reports.
    pub round_trip_ms: Option<f64>,
}

impl DirectionQuality {
    /// Minimum number of packets (one second of audio) from which loss and MOS are estimated.
    pub const PACKETS_MIN: u64 = 50;

    /// Whether there are enough packets to estimate loss and MOS.
    pub fn is_conclusive(&self) -> bool {
        self.packets >= Self::PACKETS_MIN
    }
}

impl CallQuality {
    /// Returns the mean opinion score of the worse direction. `None` if both have too few packets.
    pub fn mos(&self) -> Option<f64> {
        let Self { inbound, outbound, .. } = self.conclusive();
        [inbound, outbound].into_iter().flatten().map(|way| way.mos).reduce(f64::min)
    }

    /// Returns the quality without directions that have too few packets.
    pub fn conclusive(self) -> Self {
        Self {
            inbound: self.inbound.filter(DirectionQuality::is_conclusive),
            outbound: self.outbound.filter(DirectionQuality::is_conclusive),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CallQuality, DirectionQuality};

    #[test]
    fn directions_with_too_few_packets_have_no_opinion_score() {
        let way = |packets, mos| {
            Some(DirectionQuality {
                packets,
                loss_percent: 0.0,
                jitter_ms: 1.0,
                r_factor: 80.0,
                mos,
            })
        };
        let quality =
            |inbound, outbound| CallQuality { inbound, outbound, round_trip_ms: Some(9.0) };
        assert_eq!(quality(way(50, 4.0), way(49, 1.0)).mos(), Some(4.0));
        assert_eq!(quality(way(1, 4.4), None).mos(), None);
        let kept = quality(way(130, 4.4), way(1, 4.4)).conclusive();
        assert_eq!(kept, quality(way(130, 4.4), None));
    }
}

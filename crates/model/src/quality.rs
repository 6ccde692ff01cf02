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

impl CallQuality {
    /// Mean opinion score of the worse direction.
    pub fn mos(&self) -> Option<f64> {
        [self.inbound, self.outbound].into_iter().flatten().map(|way| way.mos).reduce(f64::min)
    }
}

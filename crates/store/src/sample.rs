//! Sample records for tests, here and in dependent crates (feature `test-util`).

use uuid::Uuid;

use crate::error::StoreError;
use crate::rows::call::{CallEnd, CallStart, Conclusion};
use crate::tables::calls::Calls;
use crate::tables::rooms::RoomMember;
use machine::{CallSetup, CallUrls, MachineLimits, MemberId, Role};
use model::{CallType, CallUuid, Direction, Method, Timestamp};
use xml::ast::DocUrl;

impl Calls<'_> {
    /// Concludes a call without callbacks. Returns whether this closed the record.
    ///
    /// # Errors
    /// Fails like [`Calls::conclude`].
    pub async fn conclude_without_callbacks(
        self,
        start: CallStart,
        end: CallEnd,
    ) -> Result<bool, StoreError> {
        let conclusion = Conclusion { start, end, callbacks: Vec::new(), farewell: None };
        Ok(self.conclude(conclusion).await?.changed)
    }
}

/// The set-up of the `n`th call of a test.
pub fn setup(n: u128) -> CallSetup {
    let url = DocUrl("https://app.example.com/answer".into());
    CallSetup {
        call: CallUuid(Uuid::from_u128(n)),
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        wacid: Some(format!("wacid.{n}").into()),
        phone_number_id: "7".into(),
        from: "919812345678".to_owned(),
        to: "918035737458".to_owned(),
        caller_name: "Zoë \"Z\"".to_owned(),
        cta_payload: None,
        deeplink_payload: None,
        account: "MAAAAAAAAAAAAAAAAAAA".into(),
        parent_account: "MAAAAAAAAAAAAAAAAAAA".into(),
        urls: CallUrls {
            answer: url.clone(),
            answer_method: Method::Post,
            fallback: None,
            hangup: (url, Method::Get),
        },
        started: Timestamp::from_micros(1_000_000),
        limits: MachineLimits::default(),
        headers: Vec::new(),
        outbound: None,
    }
}

/// An agent on hold in a multi-party call.
pub fn held_agent(member: MemberId, joined: Timestamp) -> RoomMember {
    RoomMember {
        member,
        call: CallUuid(Uuid::from_u128(member.into())),
        direction: Direction::Inbound,
        role: Some(Role::Agent),
        muted: false,
        held: true,
        coaches: false,
        stays_alone: true,
        ends: false,
        starts: true,
        joined,
    }
}

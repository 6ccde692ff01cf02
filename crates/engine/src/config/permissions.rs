//! `[permissions]`: the rules for outbound calls.

use super::forms::{country, flag, integer, list};
use super::section::Section;
use crate::admission::settings::Permissions;

/// `[permissions]`, or the table of one number with `[permissions]` as its defaults.
pub(super) fn permissions(mut s: Section<'_>, d: &Permissions) -> Permissions {
    let count = || integer(0..=1_000_000);
    let seconds = || integer(1..=315_360_000);
    let permissions = Permissions {
        enforce: s
            .key(
                "enforce",
                flag(),
                "Whether the node keeps these rules itself. Otherwise they are left to Meta.",
            )
            .or(d.enforce),
        requests_per_day: s
            .key("requests_per_day", count(), "Permission requests to a user in 24 hours.")
            .or(d.requests_per_day),
        requests_per_week: s
            .key("requests_per_week", count(), "Permission requests to a user in 7 days.")
            .or(d.requests_per_week),
        calls_per_day: s
            .key("calls_per_day", count(), "Connected calls to a user in 24 hours.")
            .or(d.calls_per_day),
        temporary_seconds: s
            .key("temporary_seconds", seconds(), "Validity of a temporary permission.")
            .or(d.temporary_seconds),
        request_seconds: s
            .key("request_seconds", seconds(), "Validity of a permission request.")
            .or(d.request_seconds),
        prompt_after: s
            .key(
                "prompt_after",
                count(),
                "Consecutive missed calls after which Meta asks the user about the permission.",
            )
            .or(d.prompt_after),
        revoke_after: s
            .key(
                "revoke_after",
                count(),
                "Consecutive missed calls after which Meta revokes the permission.",
            )
            .or(d.revoke_after),
        barred_countries: s
            .key(
                "barred_countries",
                list("country codes", country()),
                "Countries whose business numbers may not place calls.",
            )
            .or(d.barred_countries.clone()),
    };
    s.finish();
    permissions
}

//! Links to users' media files in queued callbacks.
//!
//! A queued callback contains a placeholder, which is replaced with a signed link when the callback
//! is sent. A webhook that was down for a day still gets a link that is valid for its full hour.
//! Only the known fields are replaced, so text that a user writes never becomes a link.

use std::borrow::Cow;

use uuid::Uuid;

use machine::{CallbackRequest, EVENT_BODY, Param};

const NAME: &str = "media:";
/// JSON pointer of the link in an event.
const PLACE: &str = "/data/message/media/url";
/// The parameter with the link in a callback of Plivo's message format.
const FORM: &str = "Media0";

/// Returns the placeholder of a file.
pub fn named(message: Uuid) -> String {
    format!("{NAME}{message}")
}

/// Replaces the placeholders with links.
pub(super) fn sign(notice: &mut CallbackRequest, link: &(dyn Fn(Uuid) -> String + Send + Sync)) {
    let of = |text: &str| text.strip_prefix(NAME)?.parse().ok().map(link);
    for (name, param) in notice.params.iter_mut() {
        let signed = match name {
            FORM => of(param.reveal()),
            EVENT_BODY if param.reveal().contains(NAME) => in_event(param.reveal(), of),
            _ => None,
        };
        if let Some(signed) = signed {
            *param = Param::Plain(Cow::Owned(signed));
        }
    }
}

fn in_event(body: &str, link: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut event: serde_json::Value = serde_json::from_str(body).ok()?;
    let place = event.pointer_mut(PLACE)?;
    *place = link(place.as_str()?)?.into();
    Some(event.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use machine::CallbackKind;
    use model::Method;
    use xml::ast::DocUrl;

    fn value<'a>(notice: &'a CallbackRequest, name: &str) -> &'a str {
        notice.params.get(name).map(Param::reveal).unwrap_or_default()
    }

    #[test]
    fn only_the_known_fields_get_a_link() {
        let id = Uuid::from_u128(7);
        let event = json!({"data": {"message": {"text": named(id), "media": {"url": named(id)}}}})
            .to_string();
        let params = [(EVENT_BODY, event), (FORM, named(id)), ("Body", named(id))];
        let params = params
            .into_iter()
            .map(|(name, value)| (name.into(), Param::Plain(value.into())))
            .collect();
        let url = DocUrl("https://example.com/".into());
        let mut notice =
            CallbackRequest { kind: CallbackKind::Event, url, method: Method::Post, params };
        sign(&mut notice, &|id| format!("https://calls.example.com/media/{id}"));
        let link = format!("https://calls.example.com/media/{id}");
        let event: serde_json::Value = serde_json::from_str(value(&notice, EVENT_BODY)).unwrap();
        assert_eq!(
            event,
            json!({"data": {"message": {"text": named(id), "media": {"url": link}}}})
        );
        assert_eq!(
            (value(&notice, FORM), value(&notice, "Body")),
            (link.as_str(), named(id).as_str())
        );
    }
}

//! Message templates of a WABA: reading the approved ones from Graph, their parameters, and the
//! text that a user sees. Everything except the request is pure.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::request::{Node, OTHER};
use machine::GraphOutcome;

/// The fields requested of a template.
const FIELDS: &str = "name,language,status,category,parameter_format,components";
/// The page size. Up to 20 pages are read, which gives 1,000 templates.
const PAGE: usize = 50;
/// Maximum size of a page in bytes. A template has up to about 6 KB of JSON.
const ANSWER_MAX: usize = 1 << 20;
/// The maximum length of a text, in characters. Meta allows 1,024 for the body.
const TEXT_MAX: usize = 2_048;
/// The maximum length of a name or a language.
const NAME_MAX: usize = 512;
/// Maximum number of buttons that are read.
const BUTTONS_MAX: usize = 10;
/// Maximum number of parameters that are read.
const PARAMETERS_MAX: usize = 50;

/// An approved message template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MessageTemplate, examples(json!({"name": "order_update", "language": "en", "category": "UTILITY", "header": null, "body": "Hello {{1}}, your order arrives on {{2}}.", "footer": "Acme", "buttons": [], "parameters": [{"component": "body", "button": null, "type": "text", "name": "1", "example": "Asha"}, {"component": "body", "button": null, "type": "text", "name": "2", "example": "Tuesday"}], "named": false, "otherParts": []})))]
pub struct Template {
    pub name: String,
    /// The language code, such as `en` or `pt_BR`.
    pub language: String,
    /// Meta's value: `MARKETING`, `UTILITY` or `AUTHENTICATION`.
    pub category: String,
    pub header: Option<TemplateHeader>,
    /// The text, with placeholders such as `{{1}}` or `{{first_name}}`.
    pub body: String,
    pub footer: String,
    pub buttons: Vec<TemplateButton>,
    /// The values that a message must provide, in order.
    pub parameters: Vec<TemplateParameter>,
    /// Whether the placeholders have names instead of numbers.
    pub named: bool,
    /// The parts that are not described here. If there are any, a message may need values beside
    /// `parameters`.
    pub other_parts: Vec<OtherPart>,
}

/// A part of a template whose values are not described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MessageTemplatePart)]
pub enum OtherPart {
    /// Cards with pictures and buttons of their own.
    Carousel,
    /// A location in the header.
    Location,
    /// An offer that expires at a certain time.
    LimitedTimeOffer,
    /// A one-time password. Its button also takes the code, and Meta words the body.
    OneTimePassword,
    /// A button that opens a form (a WhatsApp Flow).
    Flow,
    /// A button that opens products of a catalogue.
    Catalog,
    /// A part that this version of Offhook does not know.
    Unknown,
}

/// The header of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateHeader {
    pub format: HeaderFormat,
    /// The text. Empty unless the format is `text`.
    pub text: String,
}

/// What a header consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeaderFormat {
    Text,
    Image,
    Video,
    Document,
}

/// A button of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateButton {
    /// Meta's type in lower case: `quick_reply`, `url`, `phone_number`, `copy_code`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub text: String,
    /// The URL of a button of type `url`, which may end with a placeholder. Otherwise empty.
    pub url: String,
}

/// A value that a message with a template must provide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateParameter {
    pub component: TemplateComponent,
    /// The position of the button, from 0.
    pub button: Option<usize>,
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// The placeholder without its braces. Empty for files and codes.
    pub name: String,
    /// The example that was given to Meta. Empty if there is none.
    pub example: String,
}

/// The part of a template that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TemplateComponent {
    Header,
    Body,
    Button,
}

/// The type of a parameter, as in Graph's `messages`. The value of a file is its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    Text,
    Image,
    Video,
    Document,
    CouponCode,
}

impl ParameterType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Video => "video",
            Self::Document => "document",
            Self::CouponCode => "coupon_code",
        }
    }
}

/// A part of a text with placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    /// The name within the braces.
    Placeholder(&'a str),
}

/// Splits a text at its placeholders, `{{1}}` or `{{first_name}}`.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut found, mut rest, mut searched) = (Vec::new(), text, 0);
    while let Some((before, after)) = rest.get(searched..).and_then(|tail| tail.split_once("{{")) {
        let start = searched + before.len();
        let name = after.split_once("}}").map(|(name, tail)| (name.trim(), tail));
        let name = name.filter(|(name, _)| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        let Some((name, tail)) = name else {
            searched = start + 2;
            continue;
        };
        if let Some(plain) = rest.get(..start).filter(|plain| !plain.is_empty()) {
            found.push(Piece::Text(plain));
        }
        found.push(Piece::Placeholder(name));
        (rest, searched) = (tail, 0);
    }
    if !rest.is_empty() {
        found.push(Piece::Text(rest));
    }
    found
}

/// Returns the names of a text's placeholders, each once, in the order in which Meta expects their
/// values.
fn placeholders(text: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Placeholder(name) if !names.contains(&name) => names.push(name),
            Piece::Placeholder(_) | Piece::Text(_) => {}
        }
    }
    // Numbered values are given in the order of the numbers, not of the text.
    names.sort_by_key(|name| name.parse::<u32>().unwrap_or_default());
    names
}

/// Replaces the placeholders of a text. Placeholders without a value are kept.
fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let filled = pieces(text).into_iter().map(|piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Placeholder(name) => value(name).unwrap_or_else(|| format!("{{{{{name}}}}}")),
    });
    filled.collect()
}

impl Template {
    /// Parses a template of Graph. `None` if it is not approved or has no name.
    pub fn read(object: &Value) -> Option<Self> {
        let text = |at: &str| text_at(object, at, NAME_MAX);
        let is_approved = text("/status").eq_ignore_ascii_case("APPROVED");
        let mut template = Self {
            name: text("/name"),
            language: text("/language"),
            category: text("/category").to_ascii_uppercase(),
            named: text("/parameter_format").eq_ignore_ascii_case("NAMED"),
            ..Self::default()
        };
        if !is_approved || template.name.is_empty() || template.language.is_empty() {
            return None;
        }
        for component in list_at(object, "/components") {
            template.read_component(component);
        }
        if template.category == "AUTHENTICATION" {
            template.note_other(OtherPart::OneTimePassword);
        }
        let order = |parameter: &TemplateParameter| match parameter.component {
            TemplateComponent::Header => 0,
            TemplateComponent::Body => 1,
            TemplateComponent::Button => 2,
        };
        template.parameters.sort_by_key(order);
        Some(template)
    }

    fn read_component(&mut self, component: &Value) {
        let text = text_at(component, "/text", TEXT_MAX);
        match text_at(component, "/type", NAME_MAX).to_ascii_uppercase().as_str() {
            "HEADER" => self.read_header(component, text),
            "BODY" => {
                let examples = list_at(component, "/example/body_text/0");
                let named = list_at(component, "/example/body_text_named_params");
                self.add_texts(TemplateComponent::Body, &text, examples, named);
                self.body = text;
            }
            "FOOTER" => self.footer = text,
            "BUTTONS" => {
                for (at, button) in
                    list_at(component, "/buttons").iter().take(BUTTONS_MAX).enumerate()
                {
                    self.read_button(at, button);
                }
            }
            "CAROUSEL" => self.note_other(OtherPart::Carousel),
            "LIMITED_TIME_OFFER" => self.note_other(OtherPart::LimitedTimeOffer),
            _ => self.note_other(OtherPart::Unknown),
        }
    }

    fn note_other(&mut self, part: OtherPart) {
        if !self.other_parts.contains(&part) {
            self.other_parts.push(part);
        }
    }

    fn read_header(&mut self, component: &Value, text: String) {
        let format = text_at(component, "/format", NAME_MAX).to_ascii_uppercase();
        let (format, kind) = match format.as_str() {
            "TEXT" => (HeaderFormat::Text, ParameterType::Text),
            "IMAGE" => (HeaderFormat::Image, ParameterType::Image),
            "VIDEO" => (HeaderFormat::Video, ParameterType::Video),
            "DOCUMENT" => (HeaderFormat::Document, ParameterType::Document),
            "LOCATION" => return self.note_other(OtherPart::Location),
            _ => return self.note_other(OtherPart::Unknown),
        };
        if kind == ParameterType::Text {
            let examples = list_at(component, "/example/header_text");
            let named = list_at(component, "/example/header_text_named_params");
            self.add_texts(TemplateComponent::Header, &text, examples, named);
        } else {
            // Meta's example is a handle of its own and no URL that could be sent.
            self.add(TemplateComponent::Header, None, kind, "", String::new());
        }
        self.header = Some(TemplateHeader { format, text });
    }

    fn read_button(&mut self, at: usize, button: &Value) {
        let kind = text_at(button, "/type", NAME_MAX).to_ascii_lowercase();
        let url = if kind == "url" { text_at(button, "/url", TEXT_MAX) } else { String::new() };
        match kind.as_str() {
            "quick_reply" | "phone_number" => {}
            "url" => {
                if let Some(name) = placeholders(&url).first() {
                    // Meta's example is the whole URL, but the parameter is its end.
                    let example = text_at(button, "/example/0", TEXT_MAX);
                    let (begin, _) = url.split_once("{{").unwrap_or_default();
                    let example = example.strip_prefix(begin).unwrap_or(&example).to_owned();
                    let place = TemplateComponent::Button;
                    self.add(place, Some(at), ParameterType::Text, name, example);
                }
            }
            "copy_code" => {
                let example = text_at(button, "/example", TEXT_MAX);
                let example = match example.is_empty() {
                    true => text_at(button, "/example/0", TEXT_MAX),
                    false => example,
                };
                let (place, kind) = (TemplateComponent::Button, ParameterType::CouponCode);
                self.add(place, Some(at), kind, "", example);
            }
            "otp" => self.note_other(OtherPart::OneTimePassword),
            "flow" => self.note_other(OtherPart::Flow),
            "catalog" | "mpm" | "spm" => self.note_other(OtherPart::Catalog),
            _ => self.note_other(OtherPart::Unknown),
        }
        self.buttons.push(TemplateButton { kind, text: text_at(button, "/text", NAME_MAX), url });
    }

    /// Adds the placeholders of a text with their examples.
    fn add_texts(
        &mut self,
        component: TemplateComponent,
        text: &str,
        examples: &[Value],
        named: &[Value],
    ) {
        for (at, name) in placeholders(text).into_iter().enumerate() {
            let example = match self.named {
                true => named
                    .iter()
                    .find(|one| text_at(one, "/param_name", NAME_MAX) == name)
                    .map(|one| text_at(one, "/example", TEXT_MAX)),
                false => examples.get(at).map(|one| text_at(one, "", TEXT_MAX)),
            };
            let example = example.unwrap_or_default();
            self.add(component, None, ParameterType::Text, name, example);
        }
    }

    fn add(
        &mut self,
        component: TemplateComponent,
        button: Option<usize>,
        kind: ParameterType,
        name: &str,
        example: String,
    ) {
        if self.parameters.len() < PARAMETERS_MAX {
            let name = name.to_owned();
            self.parameters.push(TemplateParameter { component, button, kind, name, example });
        } else {
            self.note_other(OtherPart::Unknown);
        }
    }

    /// The `template` of a message with these values, one for each of the parameters.
    pub fn content(&self, values: &[String]) -> Value {
        let mut components: Vec<(TemplateComponent, Option<usize>, Vec<Value>)> = Vec::new();
        for (parameter, value) in self.parameters.iter().zip(values) {
            let kind = parameter.kind.as_str();
            let mut object = match parameter.kind {
                ParameterType::Text | ParameterType::CouponCode => json!({kind: value}),
                ParameterType::Image | ParameterType::Video | ParameterType::Document => {
                    json!({kind: {"link": value}})
                }
            };
            if let Some(members) = object.as_object_mut() {
                members.insert("type".to_owned(), kind.into());
                if self.named && parameter.button.is_none() && !parameter.name.is_empty() {
                    members.insert("parameter_name".to_owned(), parameter.name.as_str().into());
                }
            }
            match components.last_mut() {
                Some((component, button, held))
                    if (*component, *button) == (parameter.component, parameter.button) =>
                {
                    held.push(object);
                }
                _ => components.push((parameter.component, parameter.button, vec![object])),
            }
        }
        let components = components.into_iter().map(|(component, button, parameters)| {
            let mut object = json!({"type": component, "parameters": parameters});
            if let (Some(members), Some(at)) = (object.as_object_mut(), button) {
                let kind = self.buttons.get(at).map(|button| button.kind.as_str());
                members.insert("sub_type".to_owned(), kind.unwrap_or_default().into());
                members.insert("index".to_owned(), at.to_string().into());
            }
            object
        });
        let components: Vec<Value> = components.collect();
        let mut template = json!({"name": self.name, "language": {"code": self.language}});
        if let (Some(members), false) = (template.as_object_mut(), components.is_empty()) {
            members.insert("components".to_owned(), components.into());
        }
        template
    }

    /// Returns whether a message's `template` refers to this one.
    pub fn is_named_by(&self, sent: &Value) -> bool {
        sent.get("name").and_then(Value::as_str) == Some(self.name.as_str())
            && sent.pointer("/language/code").and_then(Value::as_str)
                == Some(self.language.as_str())
    }

    /// Returns the text that the user sees for a message's `template`: header, body and footer.
    /// Placeholders without a value are kept.
    pub fn rendered(&self, sent: &Value) -> String {
        let filled = |component: &str, text: &str| {
            let parameters = list_at(sent, "/components")
                .iter()
                .find(|one| text_at(one, "/type", NAME_MAX).eq_ignore_ascii_case(component))
                .map(|one| list_at(one, "/parameters"))
                .unwrap_or_default();
            let names = placeholders(text);
            fill(text, |name| {
                let is_named =
                    |one: &&Value| one.get("parameter_name").and_then(Value::as_str) == Some(name);
                let at = names.iter().position(|known| *known == name)?;
                let found = parameters.iter().find(is_named).or_else(|| parameters.get(at))?;
                ["/text", "/currency/fallback_value", "/date_time/fallback_value"]
                    .iter()
                    .find_map(|pointer| found.pointer(pointer)?.as_str().map(str::to_owned))
            })
        };
        let header = self.header.as_ref().map(|header| filled("header", &header.text));
        let parts = [header.unwrap_or_default(), filled("body", &self.body), self.footer.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("\n\n").chars().take(TEXT_MAX * 2).collect()
    }
}

/// The text at a JSON pointer, truncated. Empty if there is none. Control characters other than
/// line breaks are removed.
fn text_at(value: &Value, at: &str, most: usize) -> String {
    let text = value.pointer(at).and_then(Value::as_str).unwrap_or_default();
    text.chars().filter(|c| *c == '\n' || !c.is_control()).take(most).collect()
}

fn list_at<'a>(value: &'a Value, at: &str) -> &'a [Value] {
    value.pointer(at).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Reads the approved templates of a WABA with `GET /{waba_id}/message_templates`, ordered by name
/// and language.
pub(super) async fn list(waba: &Node<'_>) -> Result<Vec<Template>, GraphOutcome> {
    let limit = PAGE.to_string();
    let query = [("fields", FIELDS), ("limit", &limit), ("status", "APPROVED")];
    let of = ("message_templates", &query[..], PAGE);
    let mut found = waba.list(of, ANSWER_MAX, OTHER, Template::read).await?;
    let key = |template: &Template| (template.name.clone(), template.language.clone());
    found.sort_by_cached_key(key);
    found.dedup_by_key(|template| key(template));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Value {
        json!({
            "name": "delivery", "language": "en", "status": "APPROVED", "category": "utility",
            "components": [
                {"type": "BODY", "text": "{{2}} for {{1}} costs {{2}}.", "example": {"body_text": [["Asha", "Tea"]]}},
                {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}", "example": {"header_text": ["4711"]}},
                {"type": "FOOTER", "text": "Acme"},
                {"type": "BUTTONS", "buttons": [
                    {"type": "QUICK_REPLY", "text": "Thanks"},
                    {"type": "URL", "text": "Track", "url": "https://example.com/{{1}}", "example": ["https://example.com/4711"]},
                    {"type": "COPY_CODE", "text": "Copy", "example": "TEA10"},
                ]},
            ],
        })
    }

    #[test]
    fn splits_texts_at_placeholders() {
        use Piece::{Placeholder, Text};
        let rows: [(&str, &[Piece<'_>]); 6] = [
            ("", &[]),
            ("Hello", &[Text("Hello")]),
            ("{{1}}", &[Placeholder("1")]),
            ("Hi {{ name }}!", &[Text("Hi "), Placeholder("name"), Text("!")]),
            ("a {{b-c}} {{1}}", &[Text("a {{b-c}} "), Placeholder("1")]),
            ("{{{{1}} {{", &[Text("{{"), Placeholder("1"), Text(" {{")]),
        ];
        for (text, expected) in rows {
            assert_eq!(pieces(text), expected, "{text}");
        }
    }

    #[test]
    fn reads_parameters_in_the_order_of_a_message() {
        let template = Template::read(&delivery()).unwrap();
        let parameters: Vec<_> = template
            .parameters
            .iter()
            .map(|one| (one.component, one.button, one.name.as_str(), one.example.as_str()))
            .collect();
        assert_eq!(
            parameters,
            [
                (TemplateComponent::Header, None, "1", "4711"),
                (TemplateComponent::Body, None, "1", "Asha"),
                (TemplateComponent::Body, None, "2", "Tea"),
                (TemplateComponent::Button, Some(1), "1", "4711"),
                (TemplateComponent::Button, Some(2), "", "TEA10"),
            ]
        );
        assert_eq!(template.other_parts, []);
        let values = ["4711", "Asha", "Tea", "4711", "TEA10"].map(str::to_owned);
        let sent = template.content(&values);
        assert_eq!(
            sent,
            json!({"name": "delivery", "language": {"code": "en"}, "components": [
                {"type": "header", "parameters": [{"type": "text", "text": "4711"}]},
                {"type": "body", "parameters": [{"type": "text", "text": "Asha"}, {"type": "text", "text": "Tea"}]},
                {"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "4711"}]},
                {"type": "button", "sub_type": "copy_code", "index": "2", "parameters": [{"type": "coupon_code", "coupon_code": "TEA10"}]},
            ]})
        );
        assert!(template.is_named_by(&sent));
        assert_eq!(template.rendered(&sent), "Order 4711\n\nTea for Asha costs Tea.\n\nAcme");
    }

    #[test]
    fn fills_named_parameters_and_leaves_missing_ones() {
        let object = json!({
            "name": "hello", "language": "de", "status": "APPROVED", "parameter_format": "NAMED",
            "components": [{"type": "BODY", "text": "Hallo {{first_name}}, bis {{day}}!",
                "example": {"body_text_named_params": [{"param_name": "day", "example": "Montag"}]}}],
        });
        let template = Template::read(&object).unwrap();
        assert_eq!(template.parameters[1].example, "Montag");
        let sent = template.content(&["Asha".to_owned(), "{{day}}".to_owned()]);
        assert_eq!(
            sent["components"][0]["parameters"][0],
            json!({"type": "text", "parameter_name": "first_name", "text": "Asha"})
        );
        assert_eq!(template.rendered(&sent), "Hallo Asha, bis {{day}}!");
        let other = json!({"components": [{"type": "body", "parameters": [
            {"type": "currency", "currency": {"fallback_value": "5 €"}}]}]});
        assert_eq!(template.rendered(&other), "Hallo 5 €, bis {{day}}!");
        assert_eq!(template.rendered(&json!(null)), "Hallo {{first_name}}, bis {{day}}!");
    }

    #[test]
    fn skips_templates_that_are_not_approved_and_marks_those_with_other_parts() {
        for status in ["PENDING", "REJECTED", "PAUSED", "DISABLED", ""] {
            let object = json!({"name": "a", "language": "en", "status": status});
            assert_eq!(Template::read(&object), None, "{status}");
        }
        for object in [json!(null), json!([]), json!({"status": "APPROVED", "name": 7})] {
            assert_eq!(Template::read(&object), None, "{object}");
        }
        let button =
            |kind: &str| json!({"type": "BUTTONS", "buttons": [{"type": kind, "text": "Go"}]});
        for (component, part) in [
            (json!({"type": "CAROUSEL", "cards": []}), OtherPart::Carousel),
            (json!({"type": "HEADER", "format": "LOCATION"}), OtherPart::Location),
            (json!({"type": "LIMITED_TIME_OFFER"}), OtherPart::LimitedTimeOffer),
            (button("OTP"), OtherPart::OneTimePassword),
            (button("FLOW"), OtherPart::Flow),
            (button("MPM"), OtherPart::Catalog),
            (button("HOLOGRAM"), OtherPart::Unknown),
        ] {
            let object = json!({"name": "a", "language": "en", "status": "APPROVED",
                "components": [component, component]});
            assert_eq!(Template::read(&object).unwrap().other_parts, [part], "{object}");
        }
        let login = json!({"name": "a", "language": "en", "status": "APPROVED", "category": "AUTHENTICATION"});
        assert_eq!(Template::read(&login).unwrap().other_parts, [OtherPart::OneTimePassword]);
    }

    #[test]
    fn long_texts_are_cut() {
        let object = json!({"name": "a", "language": "en", "status": "APPROVED",
            "components": [{"type": "BODY", "text": "ä\u{0}".repeat(100_000)}]});
        assert_eq!(Template::read(&object).unwrap().body.chars().count(), TEXT_MAX);
    }
}

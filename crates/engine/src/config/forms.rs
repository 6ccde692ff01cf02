//! Types of values: how the value of a key is read, and how the reference names and shows it.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use url::Url;

use super::fault::Place;
use super::tree::{Node, Value};
use super::types::{MediaIps, StunServer};
use model::{AuthId, Country, CountryError, E164, Method, Role, is_loopback};
use xml::ast::DocUrl;

pub(super) const ROLES: &[(&str, Role)] =
    &[("owner", Role::Owner), ("admin", Role::Admin), ("agent", Role::Agent)];
pub(super) const METHODS: &[(&str, Method)] = &[("GET", Method::Get), ("POST", Method::Post)];

/// The reason why a value is not accepted. The message continues a sentence that begins with the
/// name of the key.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) message: String,
    pub(super) hint: String,
    /// The faulty part of the value. `None` if it is the whole value.
    pub(super) at: Option<Place>,
}

impl Invalid {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), at: None }
    }
}

type Read<'f, T> = Box<dyn Fn(&Node) -> Result<T, Invalid> + 'f>;
type Show<'f, T> = Box<dyn Fn(&T) -> String + 'f>;

/// The type of a value.
pub(super) struct Form<'f, T> {
    /// The type's name in the reference.
    pub(super) kind: String,
    read: Read<'f, T>,
    show: Show<'f, T>,
}

impl<'f, T> Form<'f, T> {
    /// Creates a type. `show` writes a value as in the file.
    pub(super) fn new(
        kind: impl Into<String>,
        read: impl Fn(&Node) -> Result<T, Invalid> + 'f,
        show: impl Fn(&T) -> String + 'f,
    ) -> Self {
        Self { kind: kind.into(), read: Box::new(read), show: Box::new(show) }
    }

    pub(super) fn read(&self, node: &Node) -> Result<T, Invalid> {
        (self.read)(node)
    }

    pub(super) fn show(&self, value: &T) -> String {
        (self.show)(value)
    }
}

/// A value that is written as quoted text.
fn quoted<'f, T: Display>(
    kind: &'static str,
    read: impl Fn(&Node) -> Result<T, Invalid> + 'f,
) -> Form<'f, T> {
    Form::new(kind, read, |value| format!("\"{value}\""))
}

fn is_not(node: &Node, expected: impl Display) -> Invalid {
    Invalid::new(format!("is {}", node.value.kind()), format!("must be {expected}"))
}

/// The text of a node.
pub(super) fn text_of(node: &Node) -> Result<String, Invalid> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Int(n) => Err(Invalid::new("is a number", format!("put it in quotes: \"{n}\""))),
        _ => Err(is_not(node, "text in quotes")),
    }
}

pub(super) fn text() -> Form<'static, String> {
    quoted("string", text_of)
}

pub(super) fn flag() -> Form<'static, bool> {
    let read = |node: &Node| match &node.value {
        Value::Bool(b) => Ok(*b),
        Value::Text(t) if matches!(node.at, Place::Env(_)) && (t == "true" || t == "false") => {
            Ok(t == "true")
        }
        _ => Err(is_not(node, "true or false")),
    };
    Form::new("boolean", read, bool::to_string)
}

/// An integer in a range.
pub(super) fn integer<T: TryFrom<i64> + Display + 'static>(
    range: RangeInclusive<i64>,
) -> Form<'static, T> {
    let kind = format!("integer, {} to {}", range.start(), range.end());
    let read = move |node: &Node| {
        let n = match &node.value {
            Value::Int(n) => Some(*n),
            Value::Text(t) if matches!(node.at, Place::Env(_)) => t.trim().parse().ok(),
            _ => None,
        };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let n = n.ok_or_else(|| is_not(node, &expected))?;
        let fits = if range.contains(&n) { T::try_from(n).ok() } else { None };
        fits.ok_or_else(|| Invalid::new(format!("is {n}"), format!("must be {expected}")))
    };
    Form::new(kind, read, T::to_string)
}

/// Parses a value with [`FromStr`](std::str::FromStr). `expected` describes it in the error.
fn parsed<T: std::str::FromStr>(node: &Node, expected: &str) -> Result<T, Invalid> {
    let parsed = text_of(node)?.trim().parse();
    parsed.map_err(|_| Invalid::new("is not valid", format!("must be {expected}")))
}

pub(super) fn address() -> Form<'static, SocketAddr> {
    quoted("address and port", |node| {
        parsed(node, "an address and a port, like \"0.0.0.0:8080\" or \"[::]:8080\"")
    })
}

pub(super) fn ip() -> Form<'static, IpAddr> {
    quoted("IP address", |node| parsed(node, "an IP address"))
}

/// The word `auto`, or a list of IP addresses.
pub(super) fn media_ips() -> Form<'static, MediaIps> {
    let Form { kind, read, show } = list("IP addresses", ip());
    let read = move |node: &Node| match &node.value {
        Value::Text(word) if word.trim() == "auto" => Ok(MediaIps::Auto),
        Value::Text(_) if !matches!(node.at, Place::Env(_)) => {
            Err(is_not(node, "\"auto\" or a list in brackets"))
        }
        _ => read(node)
            .map(|ips| if ips.is_empty() { MediaIps::Bound } else { MediaIps::Listed(ips) }),
    };
    let show = move |ips: &MediaIps| match ips {
        MediaIps::Auto => "\"auto\"".to_owned(),
        MediaIps::Bound | MediaIps::Listed(_) => show(&ips.listed().to_vec()),
    };
    Form::new(format!("\"auto\" or {kind}"), read, show)
}

pub(super) fn stun_server() -> Form<'static, StunServer> {
    quoted("host and port", |node| {
        parsed(node, "a host and a port, like \"stun.example.com:3478\"")
    })
}

/// An address, or a prefix of addresses.
pub(super) fn prefix() -> Form<'static, ipnet::IpNet> {
    quoted("IP address or prefix", |node| {
        let expected = "an address or a prefix, like \"10.0.0.0/8\"";
        parsed::<IpAddr>(node, expected).map(ipnet::IpNet::from).or_else(|_| parsed(node, expected))
    })
}

/// A list. In the environment it is written with commas or in the brackets of TOML.
pub(super) fn list<'f, T: 'f>(kind: &str, form: Form<'f, T>) -> Form<'f, Vec<T>> {
    let kind = format!("list of {kind}");
    let Form { read, show, .. } = form;
    let read = move |node: &Node| {
        let from_env;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Text(t) if matches!(node.at, Place::Env(_)) => {
                from_env = items_in_text(t, &node.at);
                &from_env
            }
            _ => return Err(is_not(node, "a list in brackets")),
        };
        items
            .iter()
            .map(|item| read(item).map_err(|e| Invalid { at: e.at.or(Some(item.at.clone())), ..e }))
            .collect()
    };
    let show = move |items: &Vec<T>| {
        format!("[{}]", items.iter().map(&show).collect::<Vec<_>>().join(", "))
    };
    Form::new(kind, read, show)
}

/// The items of a list in the environment.
pub(super) fn items_in_text(list: &str, at: &Place) -> Vec<Node> {
    let bare = list.trim().trim_start_matches('[').trim_end_matches(']');
    bare.split(',')
        .map(|item| item.trim().trim_matches('"'))
        .filter(|item| !item.is_empty())
        .map(|item| Node { at: at.clone(), value: Value::Text(item.to_owned()) })
        .collect()
}

/// A string, or a list of strings.
pub(super) fn one_or_many() -> Form<'static, Vec<String>> {
    let Form { read, show, .. } = list("strings", text());
    let read = move |node: &Node| text_of(node).map(|one| vec![one]).or_else(|_| read(node));
    Form::new("string or list of strings", read, show)
}

/// One of some words.
pub(super) fn one_of<T: Copy + PartialEq>(words: &'static [(&'static str, T)]) -> Form<'static, T> {
    let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let kind = format!("one of {all}");
    let read = move |node: &Node| {
        let given = text_of(node)?;
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
        found
            .ok_or_else(|| Invalid::new(format!("is \"{given}\""), format!("must be one of {all}")))
    };
    let show = move |value: &T| {
        let word = words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| *word);
        format!("\"{word}\"")
    };
    Form::new(kind, read, show)
}

pub(super) fn phone_number() -> Form<'static, E164> {
    let read = |node: &Node| {
        let given = text_of(node)?;
        let digits = given.starts_with(|c: char| c.is_ascii_digit() && c != '0');
        match E164::parse(&given) {
            Ok(number) if digits && number.as_str() == given => Ok(number),
            Ok(number) if !number.as_str().starts_with('0') => {
                Err(Invalid::new("is not in E.164 digits", format!("write \"{number}\"")))
            }
            Ok(_) | Err(_) => Err(Invalid::new(
                "is not a phone number",
                "E.164: country code first, 5 to 15 digits, no plus",
            )),
        }
    };
    Form::new("E.164 digits", read, |number| format!("\"{}\"", number.as_str()))
}

pub(super) fn country() -> Form<'static, Country> {
    let read = |node: &Node| {
        let code = text_of(node)?;
        Country::parse(&code).map_err(|why| {
            let hint = match why {
                CountryError::InvalidCode => {
                    "two capital letters of ISO 3166, like \"US\"".to_owned()
                }
                CountryError::Unknown => {
                    "an ISO 3166 country code, like \"US\"; Britain's is \"GB\"".to_owned()
                }
                CountryError::SharedCallingCode(with) => {
                    format!("name \"{with}\", which bars both")
                }
            };
            Invalid::new(format!("has \"{code}\", which {why}"), hint)
        })
    };
    quoted("country code", read)
}

/// See [`AuthId::parse`].
pub(super) fn auth_id() -> Form<'static, AuthId> {
    let read = |node: &Node| {
        let id = text_of(node)?;
        if let Some(id) = AuthId::parse(&id) {
            return Ok(id);
        }
        let chars = id.chars().count();
        Err(Invalid::new(
            format!("is not an auth_id ({chars} characters)"),
            "MA (an account) or SA (a subaccount) and 18 capital letters or digits: 20 in all",
        ))
    };
    Form::new("auth ID", read, |id: &AuthId| format!("\"{}\"", id.as_str()))
}

/// An id assigned by Meta.
pub(super) fn meta_id() -> Form<'static, String> {
    digits_of("Meta", "digits in quotes")
}

/// An id of digits. `issuer` is the party that issues such ids.
pub(super) fn digits_of(issuer: &'static str, hint: &'static str) -> Form<'static, String> {
    quoted("string of digits", move |node| {
        let id = text_of(node)?;
        let fits = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(id) } else { Err(Invalid::new(format!("is not an id of {issuer}"), hint)) }
    })
}

/// An absolute http or https URL, as written and parsed.
pub(super) fn absolute_url(node: &Node) -> Result<(String, Url), Invalid> {
    let given = text_of(node)?;
    let bad =
        |what: &str| Invalid::new(format!("is not a URL: {what}"), "write \"https://host/path\"");
    let url = Url::parse(given.trim()).map_err(|e| bad(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("neither http nor https"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid::new("contains a user name or a password", "leave them out"));
    }
    if given.len() > 2_048 {
        return Err(Invalid::new("is longer than 2,048 characters", ""));
    }
    Ok((given.trim().to_owned(), url))
}

fn without_query(node: &Node) -> Result<Url, Invalid> {
    let (_, url) = absolute_url(node)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Invalid::new("has a query or a fragment", "only scheme, host, port and path"));
    }
    Ok(url)
}

/// A URL to which paths are appended.
pub(super) fn base_url() -> Form<'static, Url> {
    quoted("URL", without_query)
}

/// The base of the Graph API. It gets the access token, so plain http may lead only to this
/// machine.
pub(super) fn graph_url(insecure: bool) -> Form<'static, Url> {
    quoted("URL", move |node| {
        let url = without_query(node)?;
        if is_confidential(&url) || insecure {
            Ok(url)
        } else {
            Err(Invalid::new(
                "would send the access token over http",
                "use https, or set [answer] allow_insecure = true",
            ))
        }
    })
}

/// Whether requests to the URL use TLS or stay within this machine.
pub(super) fn is_confidential(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// Returns the error for a URL that must be https.
pub(super) fn not_https() -> Invalid {
    Invalid::new("is http", "use https, or set [answer] allow_insecure = true for development")
}

/// A customer's URL, kept as written. An empty one is absent.
pub(super) fn customer_url(insecure: bool) -> Form<'static, Option<DocUrl>> {
    let read = move |node: &Node| {
        if text_of(node)?.trim().is_empty() {
            return Ok(None);
        }
        let (given, url) = absolute_url(node)?;
        if url.scheme() != "https" && !insecure {
            return Err(not_https());
        }
        Ok(Some(DocUrl(given.into())))
    };
    let show = |url: &Option<DocUrl>| format!("\"{}\"", url.as_ref().map_or("", |url| &*url.0));
    Form::new("URL", read, show)
}

/// A string that must fulfil a condition.
pub(super) fn text_if(
    kind: &'static str,
    fits: impl Fn(&str) -> bool + 'static,
    invalid: impl Fn(&str) -> Invalid + 'static,
) -> Form<'static, String> {
    quoted(kind, move |node| {
        let given = text_of(node)?;
        if fits(&given) { Ok(given) } else { Err(invalid(&given)) }
    })
}

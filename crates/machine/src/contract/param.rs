//! The parameters of a request to a customer's URL, in byte order
//! (docs/reference/callbacks.md#request-form).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The value of a parameter.
///
/// A secret value, such as digits of a `GetInput` with `log="false"`, is serialised and formatted
/// as one `x` for each character, so that no log contains it. Only [`Param::reveal`] returns its
/// text.
#[derive(Clone, PartialEq, Eq)]
pub enum Param {
    /// A value that may be logged. Half of the values of a request are constants, which are not
    /// copied.
    Plain(Cow<'static, str>),
    Secret(String),
}

impl Param {
    /// Returns the text that is sent.
    pub fn reveal(&self) -> &str {
        match self {
            Self::Plain(s) => s,
            Self::Secret(s) => s,
        }
    }

    fn masked(&self) -> Cow<'_, str> {
        match self {
            Self::Plain(s) => Cow::Borrowed(s),
            Self::Secret(s) => s.chars().map(|_| 'x').collect(),
        }
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.masked(), f)
    }
}

impl Serialize for Param {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.masked())
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(|text| Self::Plain(text.into()))
    }
}

/// The name of a parameter. All names except those of custom headers are constants.
type Name = Cow<'static, str>;

/// The parameters of a request to a customer's URL: each name once, in byte order.
///
/// They are kept in a sorted list. A request has about twenty, which are inserted nearly in order;
/// a map would cost as much memory as their texts.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<Name, Param>")]
pub struct Params(Vec<(Name, Param)>);

impl Params {
    /// Returns an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty list with the given capacity.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Returns the value of the parameter `name`, or `None` if it is absent.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.0.get(self.place(name).ok()?).map(|(_, value)| value)
    }

    /// Inserts a parameter and returns its previous value, if it had one. This is fast if the name
    /// sorts after all others.
    pub fn insert(&mut self, name: Name, value: Param) -> Option<Param> {
        if self.0.last().is_none_or(|(last, _)| **last < *name) {
            self.0.push((name, value));
            return None;
        }
        match self.place(&name) {
            Ok(at) => self.0.get_mut(at).map(|(_, before)| std::mem::replace(before, value)),
            Err(at) => {
                self.0.insert(at, (name, value));
                None
            }
        }
    }

    /// Removes a parameter and returns its value, or `None` if it is absent.
    pub fn remove(&mut self, name: &str) -> Option<Param> {
        self.place(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Iterates over the parameters in byte order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Iterates over the parameters in byte order of their names, with mutable values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Param)> {
        self.0.iter_mut().map(|(name, value)| (&**name, value))
    }

    /// Returns the index of a name, or as an error the index at which it must be inserted.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

/// If several parameters have the same name, the last one is kept.
impl Extend<(Name, Param)> for Params {
    fn extend<I: IntoIterator<Item = (Name, Param)>>(&mut self, params: I) {
        for (name, value) in params {
            self.insert(name, value);
        }
    }
}

impl IntoIterator for Params {
    type Item = (Name, Param);
    type IntoIter = std::vec::IntoIter<Self::Item>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(Name, Param)> for Params {
    fn from_iter<I: IntoIterator<Item = (Name, Param)>>(params: I) -> Self {
        let params = params.into_iter();
        let mut all = Self::with_capacity(params.size_hint().0);
        all.extend(params);
        all
    }
}

impl<const N: usize> From<[(Name, Param); N]> for Params {
    fn from(params: [(Name, Param); N]) -> Self {
        params.into_iter().collect()
    }
}

impl From<BTreeMap<Name, Param>> for Params {
    fn from(params: BTreeMap<Name, Param>) -> Self {
        Self(params.into_iter().collect())
    }
}

impl Serialize for Params {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter())
    }
}

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Param, Params};

    fn plain(text: &'static str) -> Param {
        Param::Plain(text.into())
    }

    #[test]
    fn keeps_byte_order_for_any_order_of_insertion() {
        let mut params = Params::from([("To".into(), plain("1")), ("From".into(), plain("2"))]);
        assert_eq!(params.insert("Digits".into(), plain("3")), None);
        assert_eq!(params.insert("from".into(), plain("4")), None);
        assert_eq!(params.insert("From".into(), plain("5")), Some(plain("2")));
        let all: Vec<_> = params.iter().map(|(name, value)| (name, value.reveal())).collect();
        assert_eq!(all, [("Digits", "3"), ("From", "5"), ("To", "1"), ("from", "4")]);
        assert_eq!(params.get("To"), Some(&plain("1")));
        assert_eq!(params.get("Event"), None);
        assert_eq!(params.remove("To"), Some(plain("1")));
        assert_eq!(params.remove("To"), None);
        params.extend(Params::from([("To".into(), plain("6")), ("From".into(), plain("7"))]));
        assert_eq!(
            serde_json::to_string(&params).unwrap(),
            r#"{"Digits":"3","From":"7","To":"6","from":"4"}"#
        );
    }

    #[test]
    fn r22_a_secret_value_is_read_back_masked() {
        let params = Params::from([("Digits".into(), Param::Secret("47".to_owned()))]);
        let line = serde_json::to_string(&params).unwrap();
        assert_eq!(
            (line.as_str(), format!("{params:?}").as_str()),
            (r#"{"Digits":"xx"}"#, r#"{"Digits": "xx"}"#)
        );
        assert_eq!(
            serde_json::from_str::<Params>(&line).unwrap(),
            Params::from([("Digits".into(), plain("xx"))])
        );
    }
}

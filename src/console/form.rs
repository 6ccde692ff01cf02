//! Form and query parameters.

/// A parameter that a page does not accept, or whose value is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) name: String,
    pub(super) value: String,
}

/// Decoded name and value pairs.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(text: &[u8]) -> Self {
        Self(
            url::form_urlencoded::parse(text)
                .take(200)
                .map(|(n, v)| (n.into_owned(), v.into_owned()))
                .collect(),
        )
    }

    /// A field without surrounding white space. Empty if it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The unmodified value of a field. Empty if it is missing.
    pub(super) fn raw(&self, name: &str) -> &str {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }

    /// All names and values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A field, or `None` if it is missing or blank.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.get(name)).filter(|value| !value.is_empty())
    }

    /// Reads the value of a field. `None` if it is missing or blank.
    pub(super) fn read_as<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let unreadable =
            |value: &str| Unreadable { name: name.to_owned(), value: value.to_owned() };
        self.some(name).map(|value| read(value).ok_or_else(|| unreadable(value))).transpose()
    }

    /// Refuses fields that are not among these, so that a misspelt filter is not ignored.
    pub(super) fn check_names(&self, known: &[&[&str]]) -> Result<(), Unreadable> {
        let is_known = |name: &str| known.iter().any(|known| known.contains(&name));
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, value)) => Err(Unreadable { name: name.clone(), value: value.clone() }),
            None => Ok(()),
        }
    }

    /// Returns a query with these fields only. Blanks around their values are removed.
    pub(super) fn only(&self, names: &[&str]) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let trimmed = self.0.iter().map(|(name, value)| (name.as_str(), value.trim()));
        query.extend_pairs(
            trimmed.filter(|(name, value)| names.contains(name) && !value.is_empty()),
        );
        format!("?{}", query.finish())
    }

    /// Returns the fields without this one.
    pub(super) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }

    /// Returns the query with one field replaced or removed.
    pub(super) fn with(&self, name: &str, value: Option<&str>) -> String {
        let kept = self.0.iter().filter(|(known, value)| known != name && !value.is_empty());
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(kept);
        if let Some(value) = value {
            query.append_pair(name, value);
        }
        format!("?{}", query.finish())
    }
}

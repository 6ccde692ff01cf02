//! A URL of an application or a number.

use serde::{Deserialize, Serialize};

use model::Method;
use xml::ast::DocUrl;

/// A URL and its HTTP method. The method is kept even without a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub url: Option<DocUrl>,
    pub method: Method,
}

impl Link {
    /// URL and method, or `None` without a URL.
    pub fn get(&self) -> Option<(DocUrl, Method)> {
        self.url.clone().map(|url| (url, self.method))
    }
}

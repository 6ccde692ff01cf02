//! `[recordings.s3]`: the bucket that recordings are copied to.

use url::Url;

use model::Secret;

/// `[recordings.s3]`: a bucket of S3-compatible storage.
#[derive(Clone, Debug)]
pub struct S3Settings {
    pub endpoint: Url,
    pub region: String,
    pub bucket: String,
    /// Prepended to the name of each object.
    pub prefix: String,
    pub access_key_id: String,
    pub secret_access_key: Secret,
    /// Whether the bucket's name is part of the path of URLs instead of the host name.
    pub path_style: bool,
    /// Whether the local file is kept after it was copied.
    pub keep_local: bool,
    /// Whether downloads are redirected to the bucket. Otherwise the node reads the object and
    /// passes it on.
    pub redirect: bool,
}

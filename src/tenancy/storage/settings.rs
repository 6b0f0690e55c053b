//! Where files are kept, as an operator of the app says it, and which contradictions are refused.

use std::path::PathBuf;

/// Where files are kept.
#[derive(Clone)]
pub enum StorageSettings {
    /// Below a directory of this machine; all copies of the app must see the same one.
    Local {
        /// Made with mode 0700 when it is not there.
        directory: PathBuf,
    },
    /// In a bucket.
    S3(S3Settings),
}

/// A bucket of S3 or of a server that speaks its protocol. The variables are those of the AWS tools.
#[derive(Clone)]
pub struct S3Settings {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: String,
    /// `AWS_DEFAULT_REGION`
    pub region: String,
    /// `AWS_BUCKET`
    pub bucket: String,
    /// `AWS_URL`: the server's address. `None` is Amazon's for the region.
    pub url: Option<String>,
    /// `url` may be another server than Amazon's. Said on its own, because keys and files go to whoever stands there.
    pub custom_endpoint: bool,
    /// `url` may be `http://`. Signatures do not hide what is in a file.
    pub allow_http: bool,
}

/// Why storage cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StorageSettingsError {
    /// The directory is not there and cannot be made.
    #[error("preparing the storage directory {directory}")]
    Directory {
        /// As set.
        directory: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The address is none.
    #[error("reading AWS_URL: `{0}` is no address of the form https://host")]
    Url(String),
    /// Another server than Amazon's, without the setting for it.
    #[error("reading AWS_URL: `{0}` is not Amazon's; set MOS_S3_CUSTOM_ENDPOINT=true if that is meant")]
    CustomEndpoint(String),
    /// Plain HTTP, without the setting for it.
    #[error("reading AWS_URL: `{0}` is not encrypted; set MOS_S3_ALLOW_HTTP=true if that is meant")]
    Http(String),
    /// The client refuses its settings.
    #[error("preparing the client of the bucket {bucket}")]
    Client {
        /// The bucket's name.
        bucket: String,
        /// What it said.
        #[source]
        source: object_store::Error,
    },
}

impl S3Settings {
    /// Refuses an address that nobody allowed.
    pub(super) fn check(&self) -> Result<(), StorageSettingsError> {
        let Some(url) = &self.url else { return Ok(()) };
        let parsed: http::Uri = url.parse().map_err(|_| StorageSettingsError::Url(url.clone()))?;
        let (Some(scheme), Some(host)) = (parsed.scheme_str(), parsed.host()) else {
            return Err(StorageSettingsError::Url(url.clone()));
        };
        match scheme {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return Err(StorageSettingsError::Http(url.clone())),
            _ => return Err(StorageSettingsError::Url(url.clone())),
        }
        if !self.custom_endpoint && !host.to_ascii_lowercase().ends_with(".amazonaws.com") {
            return Err(StorageSettingsError::CustomEndpoint(url.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(url: &str, custom_endpoint: bool, allow_http: bool) -> S3Settings {
        S3Settings {
            access_key_id: "key".into(),
            secret_access_key: "secret".into(),
            region: "eu-central-1".into(),
            bucket: "files".into(),
            url: Some(url.into()),
            custom_endpoint,
            allow_http,
        }
    }

    #[test]
    fn another_server_and_plain_http_are_taken_only_when_somebody_said_so() {
        type Expected = fn(&Result<(), StorageSettingsError>) -> bool;
        let rows: [(&str, bool, bool, Expected); 9] = [
            ("https://s3.eu-central-1.amazonaws.com", false, false, Result::is_ok),
            ("https://s3.example", false, false, |r| matches!(r, Err(StorageSettingsError::CustomEndpoint(_)))),
            ("https://s3.example", true, false, Result::is_ok),
            ("http://s3.example:7070", true, false, |r| matches!(r, Err(StorageSettingsError::Http(_)))),
            ("http://s3.example:7070", false, true, |r| matches!(r, Err(StorageSettingsError::CustomEndpoint(_)))),
            ("http://s3.example:7070", true, true, Result::is_ok),
            ("https://amazonaws.com.evil.example", false, true, Result::is_err),
            ("s3.example", true, true, |r| matches!(r, Err(StorageSettingsError::Url(_)))),
            ("ftp://s3.example", true, true, |r| matches!(r, Err(StorageSettingsError::Url(_)))),
        ];
        for (url, custom, http, expected) in rows {
            let found = s3(url, custom, http).check();
            assert!(expected(&found), "{url}, {custom}, {http}: {found:?}");
        }
    }
}

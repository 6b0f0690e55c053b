//! slices
#![allow(missing_docs, clippy::all, clippy::pedantic)]

use std::path::PathBuf;

use futures::Stream;

pub enum Source {
    Cluster { client: kube::Client, namespace: String },
    Directory(PathBuf),
}

pub struct Change {
    pub slice: String,
    pub content: Option<Vec<u8>>,
}

pub fn changes(_source: Source, _names: Vec<String>, _health: Health) -> impl Stream<Item = Change> + Send + use<> {
    futures::stream::pending()
}

#[derive(Clone)]
pub struct Health;

impl Health {
    pub fn new(_total: usize) -> Self {
        Self
    }
    pub fn is_loaded(&self) -> bool {
        true
    }
    pub fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Clone)]
pub struct Acknowledgements;

impl Acknowledgements {
    pub fn new() -> Self {
        Self
    }
    pub fn serve(&self, _slice: &str, _generation: u64) {}
    pub fn forget(&self, _slice: &str) {}
    pub fn router(&self) -> axum::Router {
        axum::Router::new()
    }
}

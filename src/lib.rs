//! maintenance-os: one `Tenant` object becomes a database, logins, a pooler entry, hosts, workers and backups.
//!
//! The map. Dependencies point one way: `main → roles → {observe, apply} → desired → api`; `app → tenancy → api`.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | what users write: CRD types, conditions and reasons, the documents in the slices |
//! | [`lease`] | one operator at a time |
//! | [`settings`] | every flag and variable, parsed once |
//! | [`metrics`] | the operator's own figures |
//! | [`telemetry`], [`http`] | logs, signals; the small servers for health, metrics and acknowledgements |
//! | [`slices`] | reads slices from the cluster or a directory, and acknowledges them |
//! | [`desired`] | what should exist: pure |
//! | [`observe`] | what exists: reads only |
//! | [`apply`] | what we do: every write of the operator |
//! | [`controller`] | the loop |
//! | [`error`] | how errors are told |
//! | [`central`] | the central database: migrations, the ledger, subscriptions |
//! | [`pooler`] | the agent beside PgBouncer: slices → files → RELOAD → acknowledge |
//! | [`tenancy`] | the request side, a library any axum app can use |
//! | [`app`] | the reference app on top of it |
//! | [`portal`] | the admin portal |
//! | [`audit`] | lists the audit trail, and checks that it is as it was written |
//! | [`backup`] | takes backups of tenants, looks after them and proves that they restore |
//! | [`billing`] | what Stripe tells of subscriptions, and those that are set by hand |
//! | [`web`], [`passwords`] | what every server of pages needs: hosts, addresses, cookies; how passwords are kept |
//! | [`signing`] | links that only we can have written |
//! | [`generate`] | writes the CRDs |

pub mod api;
pub mod app;
pub mod apply;
pub mod audit;
pub mod backup;
pub mod billing;
pub mod central;
pub mod controller;
pub mod desired;
pub mod error;
pub mod generate;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod passwords;
pub mod pooler;
pub mod portal;
pub mod settings;
pub mod signing;
pub mod slices;
pub mod telemetry;
pub mod tenancy;
pub mod web;

#[cfg(test)]
mod boundaries {
    //! The rules of the map, held by reading the sources.

    use std::path::{Path, PathBuf};

    fn sources(folder: &str) -> Vec<(PathBuf, String)> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder), &mut found);
        assert!(!found.is_empty(), "no sources in {folder}");
        let code = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines: Vec<_> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            (path, lines.join("\n"))
        };
        found.into_iter().map(code).collect()
    }

    fn assert_without(folders: &[&str], words: &[&str], except: &[&str]) {
        for (path, code) in folders.iter().flat_map(|folder| sources(folder)) {
            if except.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            for word in words {
                assert!(
                    !code.contains(word),
                    "{} names `{word}`, which belongs elsewhere: see the map in lib.rs",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn what_should_exist_is_decided_without_io_clock_or_chance() {
        let impure = [
            "sqlx",
            "tokio",
            "async ",
            ".await",
            "kube::Client",
            "Client,",
            "Api::",
            "Timestamp::now",
            "Instant::now",
            "SystemTime::now",
            "std::env",
            "rand::",
            "std::fs",
        ];
        // The convergence tests are a file of their own.
        assert_without(&["desired"], &impure, &["convergence.rs"]);
    }

    #[test]
    fn what_an_event_of_stripe_means_is_decided_without_io_or_clock_and_never_written_to_an_object() {
        let impure = ["sqlx", "tokio", "async ", ".await", "Timestamp::now", "std::env", "std::fs", "crate::central"];
        assert_without(&["billing"], &impure, &["mod.rs", "serve.rs", "command.rs", "metrics.rs"]);
        let objects = ["kube::", "Client", "crate::apply", "crate::controller", "crate::desired", "crate::observe"];
        assert_without(&["billing", "central/billing"], &objects, &[]);
    }

    #[test]
    fn what_users_write_has_no_behaviour_of_the_operator() {
        assert_without(
            &["api"],
            &["crate::desired", "crate::controller", "crate::apply", "crate::central", "sqlx", "async "],
            &[],
        );
    }

    #[test]
    fn observing_never_writes() {
        let writes = [
            ".patch(",
            ".patch_status(",
            ".create(",
            ".replace(",
            ".delete(",
            "INSERT ",
            "UPDATE ",
            "ALTER ",
            "DROP ",
            "GRANT ",
            "REVOKE ",
        ];
        assert_without(&["observe"], &writes, &[]);
    }

    #[test]
    fn the_request_side_knows_nothing_of_the_operator() {
        let operator = [
            "crate::desired",
            "crate::observe",
            "crate::apply",
            "crate::controller",
            "crate::central",
            "crate::pooler",
        ];
        assert_without(&["app", "tenancy"], &operator, &[]);
        assert_without(&["tenancy"], &["crate::app"], &[]);
        assert_without(&["backup"], &["crate::apply", "crate::controller", "crate::central", "crate::app"], &[]);
        assert_without(
            &["portal", "audit"],
            &[
                "crate::app",
                "crate::tenancy",
                "crate::controller",
                "crate::apply",
                "crate::observe",
                "crate::pooler",
                "sqlx",
            ],
            &[],
        );
        assert_without(&["web"], &["crate::"], &[]);
        assert_without(&["slices"], &["crate::app", "crate::tenancy", "crate::desired", "crate::controller"], &[]);
    }

    #[test]
    fn statements_for_servers_are_made_in_one_place() {
        let statements =
            ["CREATE ROLE", "CREATE DATABASE", "ALTER ROLE", "ALTER DATABASE", "DROP ROLE", "DROP DATABASE", "GRANT "];
        assert_without(
            &["apply", "backup", "controller", "observe", "pooler", "slices", "tenancy", "app", "api"],
            &statements,
            &[],
        );
    }
}

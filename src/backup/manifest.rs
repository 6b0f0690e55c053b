//! What makes a dump a backup: a document beside it that says whose it is and how to know that it is whole.
//!
//! It has a checksum of its own, and exactly one spelling: what is read must be, byte for byte, what would be written. A byte
//! that is changed anywhere is found, also in white space. It protects against damage; who may write to the bucket can forge
//! both objects.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::keys::BackupId;

/// Version of the document.
pub const SCHEMA: u32 = 1;

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The backup's name: [`BackupId`].
    pub id: String,
    /// Whose it is.
    pub tenant: TenantFacts,
    /// Where it was read.
    pub server: ServerFacts,
    /// What was read.
    pub dump: DumpFacts,
    /// Rows of every table, as `schema.table`, in the snapshot that was dumped.
    pub rows: BTreeMap<String, i64>,
    /// When it began, UTC.
    pub started_at: Timestamp,
    /// When the dump was in the bucket and read back, UTC.
    pub ended_at: Timestamp,
    /// What made it.
    pub tools: Tools,
    /// The last one before a delete: it is never removed by the rules that others are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// SHA-256, in hex, of this document with an empty text here.
    pub checksum: String,
}

/// Whose a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantFacts {
    /// The tenant's identity.
    pub uuid: Uuid,
    /// Name of the Tenant, for people.
    pub name: String,
}

/// Where a backup was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerFacts {
    /// Name of the DatabaseServer.
    pub name: String,
    /// PostgreSQL's own identity of it.
    pub system_identifier: String,
    /// PostgreSQL's version, as `17.6`.
    pub version: String,
    /// The database.
    pub database: String,
    /// The app's schema in it, `<version>_<checksum>`.
    pub schema_version: String,
}

/// What lies in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DumpFacts {
    /// Its key.
    pub key: String,
    /// `custom`: what `pg_dump -Fc` writes.
    pub format: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// What made a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tools {
    /// Version of this program.
    pub maintenance_os: String,
    /// What `pg_dump --version` says.
    pub pg_dump: String,
}

/// Why a document is not the manifest of a backup.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// Not such a document.
    #[error("it cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// A later version of this program wrote it.
    #[error("it has version {0} and this program knows {SCHEMA}: use the version of maintenance-os that wrote it")]
    Schema(u32),
    /// A byte was changed.
    #[error("its checksum does not fit: it was damaged or changed")]
    Checksum,
    /// It lies in another tenant's folder.
    #[error("it is the backup of tenant {found} and not of {wanted}")]
    Tenant {
        /// Whose it is.
        found: Uuid,
        /// Whose it should be.
        wanted: Uuid,
    },
    /// It has another one's name.
    #[error("it is the backup {found} under the name {wanted}")]
    Id {
        /// What it says.
        found: String,
        /// Its key.
        wanted: BackupId,
    },
}

impl Manifest {
    /// The document, with its checksum.
    pub fn encode(&self) -> Vec<u8> {
        let sealed = Self { checksum: self.checksum_of(), ..self.clone() };
        sealed.text()
    }

    /// Reads the document that lies under the name `id` in the folder of `tenant`.
    ///
    /// # Errors
    /// Anything about it is not as it was written.
    pub fn decode(bytes: &[u8], tenant: Uuid, id: BackupId) -> Result<Self, Defect> {
        let manifest: Self = match serde_json::from_slice(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return Err(Self::later_schema(bytes).map_or(Defect::Unreadable(error), Defect::Schema)),
        };
        if manifest.text() != bytes || manifest.checksum != manifest.checksum_of() {
            return Err(Defect::Checksum);
        }
        if manifest.schema != SCHEMA {
            return Err(Defect::Schema(manifest.schema));
        }
        if manifest.tenant.uuid != tenant {
            return Err(Defect::Tenant { found: manifest.tenant.uuid, wanted: tenant });
        }
        if manifest.id != id.to_string() {
            return Err(Defect::Id { found: manifest.id, wanted: id });
        }
        Ok(manifest)
    }

    fn later_schema(bytes: &[u8]) -> Option<u32> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        serde_json::from_slice::<Version>(bytes).ok().map(|version| version.schema).filter(|schema| *schema > SCHEMA)
    }

    fn checksum_of(&self) -> String {
        hex(&Sha256::digest(Self { checksum: String::new(), ..self.clone() }.text()))
    }

    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("names, numbers and times have a spelling in JSON");
        text.push(b'\n');
        text
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn manifest(tenant: Uuid, id: BackupId) -> Manifest {
        Manifest {
            schema: SCHEMA,
            id: id.to_string(),
            tenant: TenantFacts { uuid: tenant, name: "acme".into() },
            server: ServerFacts {
                name: "pg-eu-1".into(),
                system_identifier: "7412345678901234567".into(),
                version: "17.6".into(),
                database: format!("tenant_{tenant}"),
                schema_version: "0006_1f2e3d4c".into(),
            },
            dump: DumpFacts {
                key: super::super::keys::key(tenant, id, super::super::keys::Part::Dump),
                format: "custom".into(),
                size: 4711,
                sha256: hex(&Sha256::digest(b"dump")),
            },
            rows: [("public.assets".to_owned(), 40), ("public.users".to_owned(), 5)].into(),
            started_at: "2026-11-26T02:17:00.123456Z".parse().unwrap(),
            ended_at: "2026-11-26T02:17:03Z".parse().unwrap(),
            tools: Tools { maintenance_os: "0.1.0".into(), pg_dump: "pg_dump (PostgreSQL) 17.6".into() },
            kept: false,
            checksum: String::new(),
        }
    }

    fn id() -> BackupId {
        BackupId::new("2026-11-26T02:17:00Z".parse().unwrap(), Uuid::from_u128(5))
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let tenant = Uuid::from_u128(7);
        let read = Manifest::decode(&manifest(tenant, id()).encode(), tenant, id()).unwrap();
        assert_eq!(Manifest { checksum: String::new(), ..read }, manifest(tenant, id()));
    }

    #[test]
    fn every_bit_of_every_byte_counts() {
        let tenant = Uuid::from_u128(7);
        let good = manifest(tenant, id()).encode();
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                assert!(Manifest::decode(&bad, tenant, id()).is_err(), "bit {bit} of byte {place} may be changed");
            }
            assert!(Manifest::decode(&good[..place], tenant, id()).is_err(), "it may end at byte {place}");
        }
    }

    #[test]
    fn a_sound_manifest_of_somebody_else_or_of_another_time_is_refused() {
        let (tenant, other) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let bytes = manifest(other, id()).encode();
        assert!(matches!(Manifest::decode(&bytes, tenant, id()), Err(Defect::Tenant { .. })));
        let later = BackupId { id: Uuid::from_u128(6), ..id() };
        assert!(matches!(Manifest::decode(&manifest(tenant, id()).encode(), tenant, later), Err(Defect::Id { .. })));
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let tenant = Uuid::from_u128(7);
        let later = String::from_utf8(manifest(tenant, id()).encode()).unwrap();
        let later = later.replace("\"schema\": 1,", "\"schema\": 2,\n  \"encryption\": \"age\",");
        assert!(matches!(Manifest::decode(later.as_bytes(), tenant, id()), Err(Defect::Schema(2))));
    }
}

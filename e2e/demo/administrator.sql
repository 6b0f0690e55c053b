-- What the administrator of a PostgreSQL server does once, before maintenance-os may use it. For psql, as a superuser:
--   psql -v provisioner_password=… -v central_password=… -f administrator.sql
-- It can be run again: then it sets the passwords anew and changes nothing else.
\set ON_ERROR_STOP on
SET password_encryption = 'scram-sha-256';

-- The operator's role. It is no superuser: it makes databases and roles, and ends sessions before a rename or a drop.
SELECT 'CREATE ROLE maintenance_os_provisioner LOGIN CREATEDB CREATEROLE'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'maintenance_os_provisioner') \gexec
ALTER ROLE maintenance_os_provisioner PASSWORD :'provisioner_password';
GRANT pg_signal_backend TO maintenance_os_provisioner;
REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;
GRANT  CONNECT ON DATABASE postgres TO maintenance_os_provisioner;

-- The central database. It may lie on any server; on one that also holds tenants nobody but its owner gets in.
SELECT 'CREATE ROLE maintenance_os_central LOGIN'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'maintenance_os_central') \gexec
ALTER ROLE maintenance_os_central PASSWORD :'central_password';
SELECT 'CREATE DATABASE maintenance_os_central OWNER maintenance_os_central TEMPLATE template0 ENCODING ''UTF8'''
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'maintenance_os_central') \gexec
REVOKE ALL ON DATABASE maintenance_os_central FROM PUBLIC;

-- Which revision the schema has, and which programs can use it.

-- tables --
SELECT to_regclass('alembic_version') IS NOT NULL AS has_revision,
       to_regclass('schema_compatibility') IS NOT NULL AS has_compatibility;

-- revision --
SELECT max(version_num) AS revision FROM alembic_version;

-- readable_from --
SELECT readable_from AS revision FROM schema_compatibility;

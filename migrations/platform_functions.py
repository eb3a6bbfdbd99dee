"""The owner's functions in schema `platform`: audit, refusal, partitions, and keeping rows over a downgrade."""

from __future__ import annotations

PLATFORM_FUNCTIONS = r"""
CREATE TABLE platform.monthly (
    table_name text PRIMARY KEY,
    month_column text NOT NULL,
    rows_stand boolean NOT NULL
);
COMMENT ON TABLE platform.monthly IS
    'Tables with monthly partitions; where rows_stand, each new partition refuses TRUNCATE too.';

CREATE FUNCTION platform.new_id(p_at timestamptz DEFAULT clock_timestamp()) RETURNS uuid
LANGUAGE sql VOLATILE SET search_path = pg_catalog AS $$
    SELECT encode(overlay(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send(micros / 1000) FROM 3) FROM 1 FOR 6)
        PLACING int2send((28672 + micros % 1000 * 4096 / 1000)::int2) FROM 7 FOR 2), 'hex')::uuid
    FROM (SELECT floor(extract(epoch FROM p_at) * 1000000)::bigint AS micros) AS instant
$$;
COMMENT ON FUNCTION platform.new_id IS
    'A UUIDv7 of the given instant, with microseconds: entries of one transaction sort as they were written.';

CREATE FUNCTION platform.id_floor(p_at timestamptz) RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
COMMENT ON FUNCTION platform.id_floor IS 'The smallest uuid whose first 48 bits are this instant in milliseconds.';

CREATE FUNCTION platform.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% of %.% is refused: its rows stand', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'EB002';
END
$$;
COMMENT ON FUNCTION platform.refuse IS 'Trigger: refuses whatever it is attached to.';

CREATE FUNCTION platform.audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_actor text := nullif(current_setting('eb.actor', true), '');
    v_now text := nullif(current_setting('eb.now', true), '');
    v_before jsonb;
    v_after jsonb;
    v_entity_id text;
BEGIN
    IF v_actor IS NULL THEN
        RAISE EXCEPTION 'a write to %.% needs an actor: SET LOCAL eb.actor', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'EB001';
    END IF;
    IF TG_OP <> 'INSERT' THEN v_before := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN v_after := to_jsonb(NEW); END IF;
    SELECT string_agg(coalesce(v_after, v_before) ->> key, '/' ORDER BY place) INTO v_entity_id
        FROM unnest(string_to_array(TG_ARGV[0], ',')) WITH ORDINALITY AS parts(key, place);
    EXECUTE format('INSERT INTO %I.audit_entry (audit_id, org_id, entity, entity_id, action, actor, on_behalf_of,'
        ' session_user_name, request_id, trace_id, at, before, after)'
        ' VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', TG_TABLE_SCHEMA)
    USING platform.new_id(), (coalesce(v_after, v_before) ->> nullif(TG_ARGV[1], ''))::uuid, TG_TABLE_NAME,
        v_entity_id, lower(TG_OP), v_actor, nullif(current_setting('eb.on_behalf_of', true), ''), session_user,
        nullif(current_setting('eb.request_id', true), ''), nullif(current_setting('eb.trace_id', true), ''),
        coalesce(v_now::timestamptz, clock_timestamp()), v_before, v_after;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION platform.audit IS
    'Trigger (key columns, org column): refuses a write without eb.actor (EB001), else writes the audit entry.';

CREATE FUNCTION platform.must_own(p_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF session_user <> 'eb_' || p_schema AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        RAISE EXCEPTION '% may not make partitions in %', session_user, p_schema USING ERRCODE = '42501';
    END IF;
END
$$;

CREATE FUNCTION platform.attach_partition(p_schema text, p_table text, p_name text, p_from text, p_to text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF to_regclass(format('%I.%I', p_schema, p_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(p_schema || '.' || p_table, 0));
    -- to_regclass would answer from before the wait: an advisory lock doesn't refresh the name cache
    IF EXISTS (SELECT 1 FROM pg_class c WHERE c.relname = p_name AND c.relnamespace = p_schema::regnamespace) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
        ' INCLUDING INDEXES INCLUDING STORAGE INCLUDING GENERATED)', p_schema, p_name, p_table);
    EXECUTE format('ALTER TABLE %1$I.%3$I ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%4$L) TO (%5$L)',
        p_schema, p_name, p_table, p_from, p_to);
    RETURN true;
END
$$;
COMMENT ON FUNCTION platform.attach_partition IS
    'Makes a table on its own, then attaches it: PARTITION OF would wait for open inserts and can deadlock.';

CREATE FUNCTION platform.ensure_month(p_table text, p_month date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    v_schema text := split_part(p_table, '.', 1);
    v_name text := split_part(p_table, '.', 2);
    v_from date := date_trunc('month', p_month)::date;
    v_partition text := v_name || to_char(v_from, '"_p"YYYY_MM');
    v_is_new boolean;
BEGIN
    IF p_table NOT IN (SELECT monthly.table_name FROM platform.monthly) THEN
        RAISE EXCEPTION '% has no monthly partitions', p_table USING ERRCODE = '42501';
    END IF;
    PERFORM platform.must_own(v_schema);
    v_is_new := platform.attach_partition(v_schema, v_name, v_partition, v_from || ' 00:00:00+00',
        (v_from + interval '1 month')::date || ' 00:00:00+00');
    IF v_is_new AND (SELECT monthly.rows_stand FROM platform.monthly WHERE monthly.table_name = p_table) THEN
        EXECUTE format('CREATE TRIGGER stands_truncate BEFORE TRUNCATE ON %I.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse()', v_schema, v_partition);
    END IF;
    RETURN v_is_new;
END
$$;
COMMENT ON FUNCTION platform.ensure_month IS
    'Makes the partition of a month (UTC) of a table listed in platform.monthly; false if it was there.';

CREATE FUNCTION platform.ensure_id_partitions(p_schema text, p_table text, p_from timestamptz, p_to timestamptz)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    v_unit text := CASE p_table WHEN 'outbox' THEN 'day' WHEN 'inbox' THEN 'month' END;
    v_step interval := ('1 ' || v_unit)::interval;
    v_at timestamptz := date_trunc(v_unit, p_from);
    v_made integer := 0;
BEGIN
    IF v_unit IS NULL OR p_to > p_from + interval '400 days' THEN
        RAISE EXCEPTION '%.% has no partitions by id, or too many were asked for', p_schema, p_table
            USING ERRCODE = '42501';
    END IF;
    PERFORM platform.must_own(p_schema);
    WHILE v_at <= p_to LOOP
        v_made := v_made + platform.attach_partition(p_schema, p_table,
            p_table || to_char(v_at, CASE v_unit WHEN 'day' THEN '"_p"YYYY_MM_DD' ELSE '"_p"YYYY_MM' END),
            platform.id_floor(v_at)::text, platform.id_floor(v_at + v_step)::text)::integer;
        v_at := v_at + v_step;
    END LOOP;
    RETURN v_made;
END
$$;
COMMENT ON FUNCTION platform.ensure_id_partitions IS
    'Makes the outbox (daily) or inbox (monthly) partitions by the time in the UUIDv7, both ends included.';

CREATE FUNCTION platform.drop_id_partitions(p_schema text, p_table text, p_before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    v_unit text := CASE p_table WHEN 'outbox' THEN 'day' WHEN 'inbox' THEN 'month' END;
    v_last text := p_table || to_char(date_trunc(v_unit, p_before), CASE v_unit WHEN 'day' THEN '"_p"YYYY_MM_DD'
        ELSE '"_p"YYYY_MM' END);
    v_partition regclass;
    v_is_busy boolean := false;
    v_dropped integer := 0;
BEGIN
    IF v_unit IS NULL THEN
        RAISE EXCEPTION '%.% has no partitions by id', p_schema, p_table USING ERRCODE = '42501';
    END IF;
    PERFORM platform.must_own(p_schema);
    FOR v_partition IN
        SELECT c.oid::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = format('%I.%I', p_schema, p_table)::regclass AND c.relname < v_last ORDER BY c.relname
    LOOP
        IF p_table = 'outbox' THEN
            EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s WHERE sent_at IS NULL)', v_partition) INTO v_is_busy;
        END IF;
        IF NOT v_is_busy THEN
            EXECUTE format('DROP TABLE %s', v_partition);
            v_dropped := v_dropped + 1;
        END IF;
    END LOOP;
    RETURN v_dropped;
END
$$;
COMMENT ON FUNCTION platform.drop_id_partitions IS
    'Drops the partitions that end at or before the day or month of p_before; never one with unsent rows.';

CREATE FUNCTION platform.keep(p_revision text, p_schema text, p_table text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    v_columns text;
BEGIN
    SELECT string_agg(CASE WHEN n.nspname = 'pg_catalog' THEN format('%I', a.attname)
            ELSE format('%1$I::text AS %1$I', a.attname) END, ', ' ORDER BY a.attnum) INTO v_columns
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE a.attrelid = format('%I.%I', p_schema, p_table)::regclass AND a.attnum > 0
            AND NOT a.attisdropped AND a.attgenerated = '';
    EXECUTE format('CREATE TABLE kept.%I AS SELECT %s FROM %I.%I',
        p_revision || ':' || p_schema || '.' || p_table, v_columns, p_schema, p_table);
END
$$;
COMMENT ON FUNCTION platform.keep IS 'Copies a table into schema kept; types of ours become text.';

CREATE FUNCTION platform.restore(p_revision text, p_schema text, p_table text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    v_kept text := format('kept.%I', p_revision || ':' || p_schema || '.' || p_table);
    v_names text;
    v_values text;
    v_month_column text;
BEGIN
    IF to_regclass(v_kept) IS NULL THEN
        RETURN;
    END IF;
    SELECT month_column INTO v_month_column FROM platform.monthly WHERE table_name = p_schema || '.' || p_table;
    IF v_month_column IS NOT NULL THEN
        EXECUTE format('SELECT count(platform.ensure_month(%L, month)) FROM (SELECT DISTINCT'
            ' date_trunc(''month'', %I AT TIME ZONE ''UTC'')::date AS month FROM %s) AS months',
            p_schema || '.' || p_table, v_month_column, v_kept);
    END IF;
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum),
            string_agg(format('%I::%s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
        INTO v_names, v_values
        FROM pg_attribute a JOIN pg_attribute k ON k.attrelid = v_kept::regclass AND k.attname = a.attname
        WHERE a.attrelid = format('%I.%I', p_schema, p_table)::regclass AND a.attnum > 0
            AND NOT a.attisdropped AND NOT k.attisdropped AND a.attgenerated = '';
    EXECUTE format('INSERT INTO %I.%I (%s) SELECT %s FROM %s', p_schema, p_table, v_names, v_values, v_kept);
    EXECUTE format('DROP TABLE %s', v_kept);
END
$$;
COMMENT ON FUNCTION platform.restore IS 'Brings back what platform.keep set aside, if it is there.';
"""

PLATFORM_RIGHTS = """
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA platform FROM PUBLIC;
GRANT EXECUTE ON FUNCTION platform.ensure_month(text, date),
    platform.ensure_id_partitions(text, text, timestamptz, timestamptz),
    platform.drop_id_partitions(text, text, timestamptz) TO @roles;
"""

AUDIT_WITH_CHAIN = r"""
CREATE FUNCTION platform.audit_masked(p_row jsonb, p_personal text, p_secret text, p_salt bytea) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT (p_row - string_to_array(coalesce(p_secret, ''), ',')) || coalesce((
        SELECT jsonb_object_agg(name, 'sha256:' || encode(sha256(p_salt || convert_to(p_row ->> name, 'UTF8')), 'hex'))
          FROM unnest(string_to_array(p_personal, ',')) AS name WHERE p_row ->> name IS NOT NULL), '{}')
$$;
COMMENT ON FUNCTION platform.audit_masked IS
    'A row as its entry shows it: secrets left out, a salted commitment in the place of each personal value.';

CREATE OR REPLACE FUNCTION platform.audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id uuid := platform.new_id();
    v_actor text := nullif(current_setting('eb.actor', true), '');
    v_now text := nullif(current_setting('eb.now', true), '');
    v_before jsonb;
    v_after jsonb;
    v_entity text := coalesce(
        (SELECT relname FROM pg_class WHERE oid = pg_partition_root(TG_RELID)), TG_TABLE_NAME);
    v_entity_id text;
    v_org_id uuid;
    v_salt bytea;
BEGIN
    IF v_actor IS NULL THEN
        RAISE EXCEPTION 'a write to %.% needs an actor: SET LOCAL eb.actor', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'EB001';
    END IF;
    IF TG_OP <> 'INSERT' THEN v_before := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN v_after := to_jsonb(NEW); END IF;
    SELECT string_agg(coalesce(v_after, v_before) ->> key, '/' ORDER BY place) INTO v_entity_id
        FROM unnest(string_to_array(TG_ARGV[0], ',')) WITH ORDINALITY AS parts(key, place);
    v_org_id := (coalesce(v_after, v_before) ->> nullif(TG_ARGV[1], ''))::uuid;
    IF TG_NARGS > 2 THEN
        v_salt := uuid_send(gen_random_uuid());
        INSERT INTO auth.audit_personal (audit_id, name, salt, before, after)
            SELECT v_id, name, v_salt, v_before ->> name, v_after ->> name
            FROM unnest(string_to_array(TG_ARGV[2], ',')) AS name
            WHERE coalesce(v_before ->> name, v_after ->> name) IS NOT NULL;
        v_before := platform.audit_masked(v_before, TG_ARGV[2], TG_ARGV[3], v_salt);
        v_after := platform.audit_masked(v_after, TG_ARGV[2], TG_ARGV[3], v_salt);
    END IF;
    EXECUTE format('INSERT INTO %I.audit_entry (audit_id, org_id, entity, entity_id, action, actor, on_behalf_of,'
        ' session_user_name, request_id, trace_id, at, before, after)'
        ' VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)', TG_TABLE_SCHEMA)
    USING v_id, v_org_id, v_entity, v_entity_id, lower(TG_OP), v_actor,
        nullif(current_setting('eb.on_behalf_of', true), ''), session_user,
        nullif(current_setting('eb.request_id', true), ''), nullif(current_setting('eb.trace_id', true), ''),
        coalesce(v_now::timestamptz, clock_timestamp()), v_before, v_after;
    EXECUTE format('INSERT INTO %I.audit_waiting (audit_id) VALUES ($1)', TG_TABLE_SCHEMA) USING v_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION platform.audit IS 'Trigger (key columns, org column[, personal columns, secret columns]; comma '
    'lists): refuses a write without eb.actor (EB001), else writes the audit entry and has it sent to be chained.';
REVOKE EXECUTE ON FUNCTION platform.audit_masked FROM PUBLIC;
"""
"""Revision 14: entries are masked, and noted to be sent."""

AUDIT_NARROWED = r"""
CREATE OR REPLACE FUNCTION platform.audit_masked(p_row jsonb, p_personal text, p_secret text, p_salt bytea)
RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT (p_row - ARRAY(SELECT split_part(name, '>', 1)
                            FROM unnest(string_to_array(coalesce(p_secret, ''), ',')) AS name)) || coalesce((
        SELECT jsonb_object_agg(name, 'sha256:' || encode(sha256(p_salt || convert_to(p_row ->> name, 'UTF8')), 'hex'))
          FROM unnest(string_to_array(p_personal, ',')) AS name WHERE p_row ->> name IS NOT NULL), '{}') || coalesce((
        SELECT jsonb_object_agg(name, (
            SELECT coalesce(jsonb_object_agg(key, left(value, 200)), '{}') FROM jsonb_each_text(p_row -> name)
             WHERE key = ANY (string_to_array(members, '/'))))
          FROM unnest(string_to_array(p_secret, ',')) AS part,
               LATERAL (SELECT split_part(part, '>', 1) AS name, split_part(part, '>', 2) AS members) AS names
         WHERE members <> '' AND jsonb_typeof(p_row -> name) = 'object'), '{}')
$$;
COMMENT ON FUNCTION platform.audit_masked IS
    'A row as its entry shows it: secrets left out (of column>a/b all but members a and b, as text of 200 characters '
    'at most), a salted commitment in the place of each personal value.';
"""
"""Revision 15: of a column that holds JSON, some members may be shown."""

-- recon_reader reads the bots' tables, writes audit rows and the pipeline's own tables; it cannot change an order, nor say
-- that an execution was consumed. recon_writer may also insert and update in the bots' tables. Nobody is given DELETE there.
-- Roles are the cluster's, not the database's: two databases may be migrated at once.

DO $$
DECLARE
  wanted    text;
  bot_table text;
  sequence  regclass;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['recon_reader', 'recon_writer'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
          NULL;                                              -- another database of this cluster was quicker
        WHEN insufficient_privilege THEN
          RAISE EXCEPTION 'role % is missing and % may not create it', wanted, current_user
            USING HINT = format('As an administrator: CREATE ROLE %I NOLOGIN; GRANT %I TO %I;', wanted, wanted, current_user);
      END;
    END IF;
  END LOOP;

  IF NOT EXISTS (
    SELECT FROM pg_auth_members m
    WHERE m.roleid = 'recon_reader'::regrole AND m.member = 'recon_writer'::regrole
  ) THEN
    GRANT recon_reader TO recon_writer;
  END IF;
  FOREACH wanted IN ARRAY ARRAY['recon_reader', 'recon_writer'] LOOP
    IF NOT EXISTS (
      SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
      WHERE r.rolname = wanted AND m.member = current_user::regrole
        AND coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
    ) THEN
      EXECUTE format('GRANT %I TO %I', wanted, current_user);
    END IF;
  END LOOP;

  IF NOT has_schema_privilege('recon_reader', 'public', 'USAGE') THEN
    GRANT USAGE ON SCHEMA public TO recon_reader, recon_writer;
  END IF;

  FOREACH bot_table IN ARRAY ARRAY['profiles', 'orders', 'positions', 'trade_history', 'capital_ledger', 'trading_control',
                                    'reconciliation_backfill_audit']
  LOOP
    -- What an owner has granted before is not granted again, for we may not be the owner, whose GRANT it takes: anybody
    -- else's may do nothing but warn.
    wanted := CASE WHEN bot_table = 'reconciliation_backfill_audit' THEN 'SELECT, INSERT' ELSE 'SELECT' END;
    IF NOT (has_table_privilege('recon_reader', format('public.%I', bot_table), 'SELECT')
            AND (wanted = 'SELECT' OR has_table_privilege('recon_reader', format('public.%I', bot_table), 'INSERT'))
            AND has_table_privilege('recon_writer', format('public.%I', bot_table), 'INSERT')
            AND has_table_privilege('recon_writer', format('public.%I', bot_table), 'UPDATE'))
    THEN
      IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = format('public.%I', bot_table)::regclass), 'USAGE') THEN
        RAISE EXCEPTION '% may not grant rights on public.%', current_user, bot_table
          USING HINT = format(
            'As its owner: GRANT %s ON public.%I TO recon_reader; GRANT SELECT, INSERT, UPDATE ON public.%I TO recon_writer;',
            wanted, bot_table, bot_table);
      END IF;
      EXECUTE format('GRANT %s ON public.%I TO recon_reader', wanted, bot_table);
      EXECUTE format('GRANT SELECT, INSERT, UPDATE ON public.%I TO recon_writer', bot_table);
    END IF;
  END LOOP;

  -- A production table may take its id from a serial's sequence.
  FOR sequence IN
    SELECT s.oid::regclass
    FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
      AND d.refobjid IN ('public.orders'::regclass, 'public.positions'::regclass, 'public.trade_history'::regclass,
                         'public.capital_ledger'::regclass, 'public.trading_control'::regclass,
                         'public.reconciliation_backfill_audit'::regclass)
  LOOP
    IF NOT has_sequence_privilege('recon_writer', sequence, 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SEQUENCE %s TO recon_writer', sequence);
    END IF;
    IF NOT has_sequence_privilege('recon_reader', sequence, 'USAGE') AND pg_get_serial_sequence('public.reconciliation_backfill_audit', 'id')::regclass = sequence THEN
      EXECUTE format('GRANT USAGE ON SEQUENCE %s TO recon_reader', sequence);
    END IF;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA recon TO recon_reader, recon_writer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA recon TO recon_reader, recon_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA recon TO recon_reader, recon_writer;
GRANT INSERT, UPDATE, DELETE ON
  recon.executions, recon.exchange_orders, recon.watermarks, recon.batches, recon.leases, recon.events,
  recon.order_confirmations, recon.parity_states, recon.watchdogs, recon.throttles, recon.cycle_reports,
  recon.lease_contentions, recon.order_checks, recon.order_sync_runs, recon.order_events, recon.order_streams, recon.cycle_runs,
  recon.account_usage, recon.totals, recon.waiting_cases
  TO recon_reader, recon_writer;
GRANT INSERT, UPDATE ON recon.consumption, recon.corrections TO recon_writer;

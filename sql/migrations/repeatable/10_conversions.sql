-- Conversions between the types that production columns have and the ones the pipeline reads. Chosen by overload, so
-- that a statement need not know the column's type. What can't be converted is NULL, which the domain reports by row.

CREATE OR REPLACE FUNCTION recon.to_time(t timestamptz) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT CASE WHEN t >= '0001-01-01 00:00:00+00' AND t < '9999-01-01 00:00:00+00' THEN t END $$;

CREATE OR REPLACE FUNCTION recon.to_time(t timestamp) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_time(t AT TIME ZONE 'UTC') $$;

-- Numbers are milliseconds since 1970, or seconds where they are too small for a date after 1973 in milliseconds.
CREATE OR REPLACE FUNCTION recon.to_time(t numeric) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
  SELECT CASE WHEN abs(t) < 253370764800000 THEN
    timestamptz '1970-01-01 00:00:00+00'
      + trunc(t * CASE WHEN abs(t) < 100000000000 THEN 1000 ELSE 1 END)::bigint * interval '1 millisecond'
  END
$$;

CREATE OR REPLACE FUNCTION recon.to_time(t bigint) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_time(t::numeric) $$;

CREATE OR REPLACE FUNCTION recon.to_time(t double precision) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_time(t::text::numeric) $$;

CREATE OR REPLACE FUNCTION recon.to_time(t text) RETURNS timestamptz
  LANGUAGE plpgsql STABLE PARALLEL SAFE SET timezone = 'UTC' AS
$$
BEGIN
  IF t ~ '^\s*[-+]?\d{1,18}(\.\d*)?\s*$' THEN
    RETURN recon.to_time(t::numeric);
  END IF;
  IF t !~ '^\s*\d{4}-\d\d-\d\d' THEN                         -- 'now', 'tomorrow', 'epoch' are no readings
    RETURN NULL;
  END IF;
  RETURN recon.to_time(t::timestamptz);
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION recon.to_ms(t timestamptz) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT floor(extract(epoch FROM recon.to_time(t)) * 1000)::bigint $$;

CREATE OR REPLACE FUNCTION recon.to_ms(t timestamp) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_ms(t AT TIME ZONE 'UTC') $$;

CREATE OR REPLACE FUNCTION recon.to_ms(t bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT t $$;

CREATE OR REPLACE FUNCTION recon.to_ms(t numeric) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_ms(recon.to_time(t)) $$;

CREATE OR REPLACE FUNCTION recon.to_ms(t double precision) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_ms(recon.to_time(t)) $$;

CREATE OR REPLACE FUNCTION recon.to_ms(t text) RETURNS bigint
  LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT recon.to_ms(recon.to_time(t)) $$;

-- The other way: an instant in the type of the second argument, whose value does not matter.
CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ms $$;

CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind numeric) RETURNS numeric
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ms::numeric $$;

CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind double precision) RETURNS double precision
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT ms::double precision $$;

CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind timestamptz) RETURNS timestamptz
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT timestamptz '1970-01-01 00:00:00+00' + ms * interval '1 millisecond' $$;

CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind timestamp) RETURNS timestamp
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT timestamp '1970-01-01 00:00:00' + ms * interval '1 millisecond' $$;

CREATE OR REPLACE FUNCTION recon.from_ms(ms bigint, kind text) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
  SELECT to_char(timestamp '1970-01-01 00:00:00' + ms * interval '1 millisecond', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- True, or an error: a quantity is never rounded into a column that is too coarse for it.
CREATE OR REPLACE FUNCTION recon.holds_exactly(wanted numeric, stored text, of_column text) RETURNS boolean
  LANGUAGE plpgsql IMMUTABLE AS
$$
BEGIN
  IF wanted IS DISTINCT FROM stored::numeric THEN
    RAISE EXCEPTION 'orders.% would store % instead of %', of_column, stored, wanted
      USING ERRCODE = 'numeric_value_out_of_range', HINT = format('Make orders.%s NUMERIC without a scale.', of_column);
  END IF;
  RETURN true;
END
$$;

-- A list of symbols, however the column keeps it; NULL means all, an empty list means none.
CREATE OR REPLACE FUNCTION recon.to_symbols(symbols text[]) RETURNS text[]
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT symbols $$;

CREATE OR REPLACE FUNCTION recon.to_symbols(symbols jsonb) RETURNS text[]
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
  SELECT CASE jsonb_typeof(symbols)
    WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(symbols))
    WHEN 'string' THEN string_to_array(replace(symbols #>> '{}', ' ', ''), ',')
  END
$$;

CREATE OR REPLACE FUNCTION recon.to_symbols(symbols json) RETURNS text[]
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT recon.to_symbols(symbols::jsonb) $$;

CREATE OR REPLACE FUNCTION recon.to_symbols(symbols text) RETURNS text[]
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT string_to_array(translate(symbols, ' {}[]"', ''), ',') $$;

-- Whether an order of this status may still execute, as the domain says it: a status that is not known to be over, or none, may.
-- One expression, so that the planner puts it in the place of the call and finds it in the index on the orders that may.
CREATE OR REPLACE FUNCTION recon.may_execute(status text) RETURNS boolean
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
  SELECT coalesce(lower(translate(trim(status), '- ', '__')), '') <> ALL (
    '{filled,canceled,cancelled,expired,rejected,replaced,done_for_day,failed,error}'::text[])
$$;

"""A production database: tables that the bots made, with other types and fewer columns than ours."""

from __future__ import annotations

import psycopg

from recon_pipeline.ledger.migrate import migrate
from recon_pipeline_tests.adapters.apply.book import Book

P1 = "6b5c0b1e-3f0e-4a55-9d5e-0a3a5b1c2d3e"
T1 = "0d3f0a52-41c7-4b8e-a7a7-2f7f6a3f5c11"
USER = "11111111-2222-3333-4444-555555555555"
TABLES = """
CREATE TYPE public.order_status AS ENUM ('pending_new', 'filled', 'canceled');
CREATE TABLE public.profiles (profile_id uuid PRIMARY KEY, user_id uuid);
CREATE TABLE public.orders (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), order_id varchar(80) NOT NULL UNIQUE, user_id uuid, profile_id uuid NOT NULL,
  symbol varchar(20), type text, side text, qty numeric(28, 9), price double precision, status public.order_status,
  "timestamp" timestamptz, filled_at timestamp, trade_id uuid, action text, source text,
  created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now()
);
CREATE TABLE public.positions (
  profile_id uuid, trade_id uuid, symbol text, side text, qty numeric(28, 9), avg_entry_price numeric, status varchar(10),
  closed_at timestamp, updated_at timestamp, PRIMARY KEY (profile_id, trade_id)
);
"""


def production_book(empty_database_url: str) -> Book:
    """The migrated tables with one profile and nothing else."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(TABLES.encode())
    migrate(empty_database_url)
    book = Book(empty_database_url)
    book.run("INSERT INTO profiles VALUES (%s, %s)", P1, USER)
    return book

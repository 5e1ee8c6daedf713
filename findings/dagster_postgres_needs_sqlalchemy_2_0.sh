#!/usr/bin/env bash
# dagster-postgres 0.29.27 installs psycopg2, and pip adds the newest SQLAlchemy that dagster allows. From 2.1 on, SQLAlchemy
# takes `postgresql://`, which dagster-postgres writes, for psycopg 3, which nothing installs: no process can open the instance.
# Under SQLAlchemy 2.0 the same URL means psycopg2. No database is needed to see it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dagster==1.13.27 dagster-postgres==0.29.27 sqlalchemy==2.1.9
cat > "$folder/look.py" <<'PYTHON'
from importlib.util import find_spec

import sqlalchemy
from dagster_postgres.utils import get_conn_string

url = get_conn_string(username="user", password="secret", hostname="localhost", db_name="dagster")
print("sqlalchemy", sqlalchemy.__version__, "psycopg2" if find_spec("psycopg2") else "-", "psycopg" if find_spec("psycopg") else "-")
try:
    print("driver:", sqlalchemy.create_engine(url).driver)
except ModuleNotFoundError as error:
    print("error:", error)
PYTHON
new=$("$folder/venv/bin/python" "$folder/look.py")
echo "$new"
"$folder/venv/bin/pip" install --quiet sqlalchemy==2.0.58
old=$("$folder/venv/bin/python" "$folder/look.py")
echo "$old"
grep -q "error: No module named 'psycopg'" <<<"$new"
grep -q "driver: psycopg2" <<<"$old"

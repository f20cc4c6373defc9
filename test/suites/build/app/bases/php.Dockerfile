FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends php-cli php-sqlite3 && rm -rf /var/lib/apt/lists/*

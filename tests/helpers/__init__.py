"""What tests share: processes, networks in every format, independent arithmetic, writers of foreign files."""

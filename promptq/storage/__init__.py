"""Where files are kept, through fsspec: a folder, or an object store such as S3."""

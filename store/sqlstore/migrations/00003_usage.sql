-- What one identity did lies between two ids, for they begin with the identity's.
DROP INDEX usage_by_identity;

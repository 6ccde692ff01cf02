-- How a call's sound got through, as JSON (`model::CallQuality`); NULL where nothing was measured.
ALTER TABLE calls ADD COLUMN quality TEXT;

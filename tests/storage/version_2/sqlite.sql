-- What version 2 of the schema left after a kill: a run in the third of four items of its map, a run that waits, a run
-- that was stopped, and a run that its owner released when a test ended its lease.
CREATE TABLE core_workflow_event_log (
	run INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	timestamp TEXT NOT NULL, 
	event_type TEXT NOT NULL, 
	step_name TEXT, 
	path TEXT, 
	metadata TEXT NOT NULL, 
	PRIMARY KEY (run, seq), 
	FOREIGN KEY(run) REFERENCES core_workflow_runs (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "core_workflow_event_log" VALUES(1,1,'2026-11-29T00:15:10.056548Z','workflow_started',NULL,NULL,'{"workflow_version":1,"total_steps":3}');
INSERT INTO "core_workflow_event_log" VALUES(1,4,'2026-11-29T00:15:10.557516Z','workflow_stopped',NULL,NULL,'{"reason":"user"}');
INSERT INTO "core_workflow_event_log" VALUES(2,1,'2026-11-29T00:15:10.056718Z','workflow_started',NULL,NULL,'{"workflow_version":1,"total_steps":3}');
INSERT INTO "core_workflow_event_log" VALUES(2,4,'2026-11-29T00:15:10.138105Z','step_started','pause','pause','{"until":"2026-11-29T00:15:14.138202+00:00"}');
INSERT INTO "core_workflow_event_log" VALUES(3,1,'2026-11-29T00:15:10.056803Z','workflow_started',NULL,NULL,'{"workflow_version":1,"total_steps":3}');
INSERT INTO "core_workflow_event_log" VALUES(3,4,'2026-11-29T00:15:10.138359Z','step_started','pause','pause','{"until":"2026-11-29T00:15:14.138434+00:00"}');
INSERT INTO "core_workflow_event_log" VALUES(4,1,'2026-11-29T00:15:10.859041Z','workflow_started',NULL,NULL,'{"workflow_version":1,"total_steps":3}');
INSERT INTO "core_workflow_event_log" VALUES(4,4,'2026-11-29T00:15:10.862635Z','step_started','each','each','{}');
CREATE TABLE core_workflow_runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	created_at TEXT NOT NULL, 
	started_at TEXT NOT NULL, 
	updated_at TEXT NOT NULL, 
	completed_at TEXT, 
	lease_until FLOAT, 
	epoch INTEGER NOT NULL, 
	next_seq INTEGER NOT NULL, 
	claims_since_progress INTEGER NOT NULL, 
	total_steps INTEGER NOT NULL, 
	workflow_version INTEGER NOT NULL, 
	run_id TEXT NOT NULL, 
	workflow_name TEXT NOT NULL, 
	status TEXT NOT NULL, 
	owner TEXT, 
	lease_boot TEXT, 
	commit_id TEXT, 
	fingerprint TEXT NOT NULL, 
	params_hash TEXT NOT NULL, 
	params TEXT NOT NULL, 
	partition TEXT, 
	initial_outputs TEXT NOT NULL, 
	initial_quality TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	start_from TEXT, 
	error_step TEXT, 
	error TEXT, 
	error_category TEXT, 
	stop_reason TEXT, 
	stop_requested TEXT, 
	UNIQUE (run_id)
);
INSERT INTO "core_workflow_runs" VALUES(1,'2026-11-29T00:15:10.056548Z','2026-11-29T00:15:10.056548Z','2026-11-29T00:15:10.557667Z','2026-11-29T00:15:10.557516Z',NULL,1,5,0,3,1,'stopped','stopped','stopped',NULL,NULL,'f946b4842fa8','2e62164f12175ecef3cdfe8acab28a8f','35d6cbd33ccf5eb2a1bb6b00bf8e95e4','{}',NULL,'{}','{}','{}',NULL,NULL,NULL,NULL,'user',NULL);
INSERT INTO "core_workflow_runs" VALUES(2,'2026-11-29T00:15:10.056718Z','2026-11-29T00:15:10.056718Z','2026-11-29T00:15:10.138518Z',NULL,16420.18035515,1,5,0,3,1,'waiting','waiting','waiting','a-machine-that-is-gone/4443/2454335/9acf26c7','ab090d82-6739-4dab-9a1b-1659a3ed80c9','471062f29a4f','23d0cda20638edc8a3d3aebe2d868836','35d6cbd33ccf5eb2a1bb6b00bf8e95e4','{}',NULL,'{}','{}','{}',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "core_workflow_runs" VALUES(3,'2026-11-29T00:15:10.056803Z','2026-11-29T00:15:10.056803Z','2026-11-29T00:15:10.138518Z',NULL,16420.18035515,1,5,0,3,1,'released','waiting','waiting',NULL,'ab090d82-6739-4dab-9a1b-1659a3ed80c9','471062f29a4f','23d0cda20638edc8a3d3aebe2d868836','35d6cbd33ccf5eb2a1bb6b00bf8e95e4','{}',NULL,'{}','{}','{}',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "core_workflow_runs" VALUES(4,'2026-11-29T00:15:10.859041Z','2026-11-29T00:15:10.859041Z','2026-11-29T00:15:10.865267Z',NULL,16420.91542184,1,11,0,3,1,'interrupted','from_version_1','running','a-machine-that-is-gone/4443/2454335/9acf26c7','ab090d82-6739-4dab-9a1b-1659a3ed80c9','df8c5ef6026d','0a4c57b111d669cbcad8a45de8f82cfd','1500baecf3e4258ac307bfad946bc273','{"symbol":"IBM","quote":"it''s \"so\""}',NULL,'{}','{}','{}',NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE core_workflow_schema (
	version INTEGER NOT NULL
);
INSERT INTO "core_workflow_schema" VALUES(2);
CREATE TABLE core_workflow_steps (
	run INTEGER NOT NULL, 
	started_at TEXT NOT NULL, 
	completed_at TEXT NOT NULL, 
	duration_ms FLOAT NOT NULL, 
	seq INTEGER NOT NULL, 
	started_seq INTEGER, 
	item_seq INTEGER, 
	epoch INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	output_size INTEGER NOT NULL, 
	item_index INTEGER, 
	ends_item BOOLEAN NOT NULL, 
	emits BOOLEAN NOT NULL, 
	path TEXT NOT NULL, 
	scope TEXT NOT NULL, 
	step_name TEXT NOT NULL, 
	step_type TEXT NOT NULL, 
	status TEXT NOT NULL, 
	attempt_id TEXT NOT NULL, 
	error TEXT, 
	error_category TEXT, 
	opening TEXT, 
	updates TEXT, 
	quality TEXT, 
	output TEXT, 
	PRIMARY KEY (run, seq), 
	UNIQUE (run, path), 
	FOREIGN KEY(run) REFERENCES core_workflow_runs (id) ON DELETE CASCADE
);
INSERT INTO "core_workflow_steps" VALUES(1,'2026-11-29T00:15:10.129845Z','2026-11-29T00:15:10.130235Z',0.347,3,2,NULL,1,1,10,NULL,0,1,'load','','load','lambda','completed','92c571b72455',NULL,NULL,NULL,NULL,NULL,'{"rows":3}');
INSERT INTO "core_workflow_steps" VALUES(2,'2026-11-29T00:15:10.130396Z','2026-11-29T00:15:10.130526Z',0.116,3,2,NULL,1,1,10,NULL,0,1,'load','','load','lambda','completed','92c571b72455',NULL,NULL,NULL,NULL,NULL,'{"rows":3}');
INSERT INTO "core_workflow_steps" VALUES(3,'2026-11-29T00:15:10.130608Z','2026-11-29T00:15:10.130705Z',0.086,3,2,NULL,1,1,10,NULL,0,1,'load','','load','lambda','completed','92c571b72455',NULL,NULL,NULL,NULL,NULL,'{"rows":3}');
INSERT INTO "core_workflow_steps" VALUES(2,'2026-11-29T00:15:10.138105Z','2026-11-29T00:15:10.138222Z',0.0,4,NULL,NULL,1,0,0,NULL,0,1,'pause@until','','pause','wait','waiting','471062f29a4f',NULL,NULL,NULL,NULL,NULL,'"2026-11-29T00:15:14.138202+00:00"');
INSERT INTO "core_workflow_steps" VALUES(3,'2026-11-29T00:15:10.138359Z','2026-11-29T00:15:10.138447Z',0.0,4,NULL,NULL,1,0,0,NULL,0,1,'pause@until','','pause','wait','waiting','471062f29a4f',NULL,NULL,NULL,NULL,NULL,'"2026-11-29T00:15:14.138434+00:00"');
INSERT INTO "core_workflow_steps" VALUES(4,'2026-11-29T00:15:10.861193Z','2026-11-29T00:15:10.861404Z',0.184,3,2,NULL,1,1,10,NULL,0,1,'load','','load','lambda','completed','17b6499c836c',NULL,NULL,NULL,NULL,NULL,'{"rows":3}');
INSERT INTO "core_workflow_steps" VALUES(4,'2026-11-29T00:15:10.863280Z','2026-11-29T00:15:10.863476Z',0.159,6,5,7,1,1,13,0,1,1,'each[0]/double','each[0]','double','lambda','completed','e9308d6c2377',NULL,NULL,'{"item":0}',NULL,NULL,'{"doubled":0}');
INSERT INTO "core_workflow_steps" VALUES(4,'2026-11-29T00:15:10.864952Z','2026-11-29T00:15:10.865146Z',0.169,9,8,10,1,1,13,1,1,1,'each[1]/double','each[1]','double','lambda','completed','df8c5ef6026d',NULL,NULL,'{"item":1}',NULL,NULL,'{"doubled":2}');
CREATE INDEX core_workflow_runs_under_way ON core_workflow_runs (created_at, id) WHERE status IN ('running', 'waiting');
CREATE INDEX core_workflow_runs_age ON core_workflow_runs (created_at, id);
CREATE VIEW core_workflow_events AS SELECT r.run_id, e.seq, e.event_type, e.step_name, e.path, e."timestamp", e.metadata FROM core_workflow_runs r JOIN (SELECT run, seq, event_type, step_name, path, "timestamp", metadata FROM core_workflow_event_log UNION ALL SELECT run, started_seq, 'step_started', step_name, path, started_at, '{}' FROM core_workflow_steps WHERE emits AND status IN ('completed', 'skipped', 'failed') AND started_seq IS NOT NULL UNION ALL SELECT run, seq, 'step_completed', step_name, path, completed_at, '{"duration_ms":' || CASE WHEN CAST(CAST(duration_ms AS TEXT) AS REAL) = duration_ms THEN CAST(duration_ms AS TEXT) ELSE printf('%!.17g', duration_ms) END || ',"output_size":' || output_size || ',"attempts":' || attempts || '}' FROM core_workflow_steps WHERE emits AND status = 'completed' UNION ALL SELECT run, seq, 'step_skipped', step_name, path, completed_at, '{"reason":' || COALESCE(json_quote(error), 'null') || '}' FROM core_workflow_steps WHERE emits AND status = 'skipped' UNION ALL SELECT run, seq, 'step_failed', step_name, path, completed_at, '{"duration_ms":' || CASE WHEN CAST(CAST(duration_ms AS TEXT) AS REAL) = duration_ms THEN CAST(duration_ms AS TEXT) ELSE printf('%!.17g', duration_ms) END || ',"attempts":' || attempts || ',"error_category":' || COALESCE(json_quote(error_category), 'null') || ',"error":' || COALESCE(json_quote(error), 'null') || '}' FROM core_workflow_steps WHERE emits AND status = 'failed' UNION ALL SELECT run, item_seq, 'map_item_completed', substr(substr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), 1, instr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), '[') - 1), 1, CASE instr(substr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), 1, instr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), '[') - 1), '#') WHEN 0 THEN length(substr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), 1, instr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), '[') - 1)) ELSE instr(substr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), 1, instr(substr(scope, length(rtrim(scope, replace(scope, '/', ''))) + 1), '[') - 1), '#') - 1 END), scope, completed_at, '{"index":' || COALESCE(CAST(item_index AS TEXT), 'null') || ',"output_size":' || output_size || '}' FROM core_workflow_steps WHERE emits AND status IN ('completed', 'skipped', 'failed') AND item_seq IS NOT NULL) e ON e.run = r.id;
CREATE VIEW core_workflow_checkpoints AS SELECT r.run_id, r.workflow_name, s.step_name, s.step_name AS checkpoint_step, s.path, s.seq, s.step_type, s.status, s.attempts, s.duration_ms, '{"params":{' || COALESCE((SELECT group_concat(w.name || ':' || w.body, ',') FROM (SELECT m.name, m.body, row_number() OVER (PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place FROM (SELECT CASE substr(j.fullkey, 3, 1) WHEN '"' THEN substr(j.fullkey, 3) ELSE '"' || substr(j.fullkey, 3) || '"' END AS name, COALESCE(replace(replace(r.params, '\\', '\u005c'), '\"', '\u0022') -> j.fullkey, json_quote(j.value)) AS body, -1 AS depth, 0 AS seq, 0 AS layer FROM json_each(replace(replace(r.params, '\\', '\u005c'), '\"', '\u0022')) j UNION ALL SELECT CASE substr(j.fullkey, 3, 1) WHEN '"' THEN substr(j.fullkey, 3) ELSE '"' || substr(j.fullkey, 3) || '"' END, COALESCE(replace(replace(v.opening, '\\', '\u005c'), '\"', '\u0022') -> j.fullkey, json_quote(j.value)), length(v.scope), v.seq, 0 FROM core_workflow_steps v CROSS JOIN json_each(replace(replace(v.opening, '\\', '\u005c'), '\"', '\u0022')) j WHERE v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/') AND v.status <> 'waiting' AND v.opening IS NOT NULL UNION ALL SELECT CASE substr(j.fullkey, 3, 1) WHEN '"' THEN substr(j.fullkey, 3) ELSE '"' || substr(j.fullkey, 3) || '"' END, COALESCE(replace(replace(v.updates, '\\', '\u005c'), '\"', '\u0022') -> j.fullkey, json_quote(j.value)), length(v.scope), v.seq, 1 FROM core_workflow_steps v CROSS JOIN json_each(replace(replace(v.updates, '\\', '\u005c'), '\"', '\u0022')) j WHERE v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/') AND v.status <> 'waiting' AND v.updates IS NOT NULL) m) w WHERE w.place = 1), '') || '},"outputs":{' || COALESCE((SELECT group_concat(w.name || ':' || w.body, ',') FROM (SELECT m.name, m.body, row_number() OVER (PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place FROM (SELECT CASE substr(j.fullkey, 3, 1) WHEN '"' THEN substr(j.fullkey, 3) ELSE '"' || substr(j.fullkey, 3) || '"' END AS name, COALESCE(replace(replace(r.initial_outputs, '\\', '\u005c'), '\"', '\u0022') -> j.fullkey, json_quote(j.value)) AS body, -1 AS depth, 0 AS seq, 0 AS layer FROM json_each(replace(replace(r.initial_outputs, '\\', '\u005c'), '\"', '\u0022')) j UNION ALL SELECT replace(replace(json_quote(v.step_name), '\\', '\u005c'), '\"', '\u0022'), v.output, length(v.scope), v.seq, 0 FROM core_workflow_steps v WHERE v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/') AND v.status IN ('completed', 'skipped', 'failed') AND v.output IS NOT NULL) m) w WHERE w.place = 1), '') || '},"quality":{' || COALESCE((SELECT group_concat(w.name || ':' || w.body, ',') FROM (SELECT m.name, m.body, row_number() OVER (PARTITION BY m.name ORDER BY m.depth DESC, m.seq DESC, m.layer DESC) AS place FROM (SELECT CASE substr(j.fullkey, 3, 1) WHEN '"' THEN substr(j.fullkey, 3) ELSE '"' || substr(j.fullkey, 3) || '"' END AS name, COALESCE(replace(replace(r.initial_quality, '\\', '\u005c'), '\"', '\u0022') -> j.fullkey, json_quote(j.value)) AS body, -1 AS depth, 0 AS seq, 0 AS layer FROM json_each(replace(replace(r.initial_quality, '\\', '\u005c'), '\"', '\u0022')) j UNION ALL SELECT replace(replace(json_quote(v.step_name), '\\', '\u005c'), '\"', '\u0022'), v.quality, length(v.scope), v.seq, 0 FROM core_workflow_steps v WHERE v.run = s.run AND v.seq <= s.seq AND (v.scope IN ('', s.scope) OR substr(s.scope, 1, length(v.scope) + 1) = v.scope || '/') AND v.status IN ('completed', 'skipped', 'failed') AND v.quality IS NOT NULL) m) w WHERE w.place = 1), '') || '},"partition":' || COALESCE(r.partition, 'null') || '}' AS context_snapshot, s.completed_at AS created_at FROM core_workflow_steps s JOIN core_workflow_runs r ON r.id = s.run WHERE s.status IN ('completed', 'skipped');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('core_workflow_runs',4);

BEGIN TRANSACTION;
CREATE TABLE agent_files (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	purpose TEXT NOT NULL, 
	name TEXT NOT NULL, 
	mime_type TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_agent_files PRIMARY KEY (seq), 
	CONSTRAINT uq_agent_files_session_id_purpose_name UNIQUE (session_id, purpose, name), 
	CONSTRAINT fk_agent_files_session_id_agent_sessions FOREIGN KEY(session_id) REFERENCES agent_sessions (session_id) ON DELETE CASCADE
);
INSERT INTO "agent_files" VALUES(1,'','00000000-0000-4000-8000-000000000002','file','a.txt','text/plain','d',X'61');
CREATE TABLE agent_sessions (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	agent_id TEXT NOT NULL, 
	name JSON NOT NULL, 
	started_at BIGINT NOT NULL, 
	expires_at BIGINT, 
	turn_id TEXT, 
	lease_until BIGINT, 
	CONSTRAINT pk_agent_sessions PRIMARY KEY (seq), 
	CONSTRAINT uq_agent_sessions_session_id UNIQUE (session_id), 
	CONSTRAINT fk_agent_sessions_agent_id_agents FOREIGN KEY(agent_id) REFERENCES agents (agent_id) ON DELETE CASCADE
);
INSERT INTO "agent_sessions" VALUES(1,'','00000000-0000-4000-8000-000000000002','00000000-0000-4000-8000-000000000001','"old-session"',1795596300000000,NULL,NULL,NULL);
CREATE TABLE agent_steps (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	turn_id TEXT NOT NULL, 
	body JSON NOT NULL, 
	CONSTRAINT pk_agent_steps PRIMARY KEY (seq), 
	CONSTRAINT fk_agent_steps_turn_id_agent_turns FOREIGN KEY(turn_id) REFERENCES agent_turns (turn_id) ON DELETE CASCADE
);
INSERT INTO "agent_steps" VALUES(1,'','00000000-0000-4000-8000-000000000003','{"turn_id": "00000000-0000-4000-8000-000000000003", "step_id": "00000000-0000-4000-8000-000000000004", "started_at": "2026-11-25T08:45:00Z", "completed_at": "2026-11-25T08:45:00Z", "step_type": "inference", "model_response": {"role": "assistant", "content": "Hello", "stop_reason": "end_of_turn", "tool_calls": []}}');
CREATE TABLE agent_turns (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	turn_id TEXT NOT NULL, 
	session_id TEXT NOT NULL, 
	started_at BIGINT NOT NULL, 
	completed_at BIGINT, 
	body JSON NOT NULL, 
	CONSTRAINT pk_agent_turns PRIMARY KEY (seq), 
	CONSTRAINT uq_agent_turns_turn_id UNIQUE (turn_id), 
	CONSTRAINT fk_agent_turns_session_id_agent_sessions FOREIGN KEY(session_id) REFERENCES agent_sessions (session_id) ON DELETE CASCADE
);
INSERT INTO "agent_turns" VALUES(1,'','00000000-0000-4000-8000-000000000003','00000000-0000-4000-8000-000000000002',1795596300000000,1795596300000000,'{"turn": {"turn_id": "00000000-0000-4000-8000-000000000003", "session_id": "00000000-0000-4000-8000-000000000002", "input_messages": [{"role": "user", "content": "Hello", "context": null}], "steps": [], "output_message": {"role": "assistant", "content": "Hello", "stop_reason": "end_of_turn", "tool_calls": []}, "output_attachments": [], "started_at": "2026-11-25T08:45:00Z", "completed_at": "2026-11-25T08:45:00Z", "error": null}, "document_context": "", "retrieved": null}');
CREATE TABLE agents (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	agent_id TEXT NOT NULL, 
	config JSON NOT NULL, 
	CONSTRAINT pk_agents PRIMARY KEY (seq), 
	CONSTRAINT uq_agents_agent_id UNIQUE (agent_id)
);
INSERT INTO "agents" VALUES(1,'','00000000-0000-4000-8000-000000000001','{"sampling_params": null, "input_shields": null, "output_shields": null, "toolgroups": null, "client_tools": null, "tool_choice": "auto", "tool_prompt_format": null, "max_infer_iters": 10, "model": "team/old-model", "instructions": "Be kind.", "enable_session_persistence": true, "response_format": null}');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004');
CREATE TABLE job_parts (
	job INTEGER NOT NULL, 
	part INTEGER NOT NULL, 
	body JSON NOT NULL, 
	CONSTRAINT pk_job_parts PRIMARY KEY (job, part), 
	CONSTRAINT fk_job_parts_job_jobs FOREIGN KEY(job) REFERENCES jobs (seq) ON DELETE CASCADE
);
INSERT INTO "job_parts" VALUES(1,0,'{"generations": [{"generated_answer": "Paris"}]}');
CREATE TABLE jobs (
	seq INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	job_id TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	principal TEXT NOT NULL, 
	request JSON NOT NULL, 
	state TEXT NOT NULL, 
	claimant TEXT, 
	heartbeats BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	cancel_requested BOOLEAN NOT NULL, 
	progress JSON NOT NULL, 
	result JSON, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	CONSTRAINT pk_jobs PRIMARY KEY (seq), 
	CONSTRAINT uq_jobs_kind_owner_job_id UNIQUE (kind, owner, job_id), 
	CONSTRAINT uq_jobs_claimant UNIQUE (claimant)
);
INSERT INTO "jobs" VALUES(1,'eval','','00000000-0000-4000-8000-000000000005','old-task','anonymous','{"task_config": {}}','completed',NULL,1,1,0,'{}','{"scores": {}}','','2026-11-25 09:57:00.000000','2026-11-25 09:57:00.000000','2026-11-25 09:57:00.000000');
CREATE TABLE metrics (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	trace_id TEXT NOT NULL, 
	span_id TEXT NOT NULL, 
	time BIGINT NOT NULL, 
	metric TEXT NOT NULL, 
	value DOUBLE NOT NULL, 
	unit TEXT NOT NULL, 
	attributes JSON NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_metrics PRIMARY KEY (seq)
);
INSERT INTO "metrics" VALUES(1,'','4bf92f3577b34da6a3ce929d0e0e4736','00f067aa0ba902b7',1795579201000000,'tokens',12.0,'1','{}',4949182137998164);
CREATE TABLE resources (
	seq INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	identifier TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	provider_id TEXT NOT NULL, 
	provider_resource_id TEXT NOT NULL, 
	body JSON NOT NULL, 
	storage_name TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_resources PRIMARY KEY (seq), 
	CONSTRAINT uq_resources_kind_identifier_owner UNIQUE (kind, identifier, owner)
);
INSERT INTO "resources" VALUES(1,'model','HuggingFaceTB/SmolLM2-135M-Instruct','','memory','HuggingFaceTB/SmolLM2-135M-Instruct','{"metadata": {}, "model_type": "llm"}','','2026-11-23 07:47:57.231502','2026-11-23 07:47:57.231502');
INSERT INTO "resources" VALUES(2,'model','all-MiniLM-L6-v2','','memory','all-MiniLM-L6-v2','{"metadata": {"embedding_dimension": 384}, "model_type": "embedding"}','','2026-11-23 07:47:57.235622','2026-11-23 07:47:57.235622');
INSERT INTO "resources" VALUES(3,'model','team/old-model','','memory','HuggingFaceTB/SmolLM2-135M-Instruct','{"metadata": {"since": "the first release"}, "model_type": "llm"}','','2026-11-23 07:47:57.393325','2026-11-23 07:47:57.393325');
INSERT INTO "resources" VALUES(4,'vector_db','old-db','','memory','old-db','{"embedding_model": "all-MiniLM-L6-v2", "embedding_dimension": 384}','vector_db_7f052493-2af7-4ded-96b6-32427bdf869e','2026-11-23 07:47:57.404185','2026-11-23 07:47:57.404185');
INSERT INTO "resources" VALUES(5,'shield','old-shield','','memory','old-shield','{"params": {}}','','2026-11-23 07:47:57.410803','2026-11-23 07:47:57.410803');
INSERT INTO "resources" VALUES(6,'dataset','old-dataset','','memory','old-dataset','{"dataset_schema": {"a": {"type": "string"}}, "url": {"uri": "data:text/csv;base64,YQoxCg=="}, "metadata": {}}','','2026-11-23 07:47:57.417018','2026-11-23 07:47:57.417018');
INSERT INTO "resources" VALUES(7,'scoring_function','old-function','','memory','old-function','{"description": "Exact match", "return_type": {"type": "number"}, "metadata": {}, "params": {"type": "basic"}}','','2026-11-23 07:47:57.422197','2026-11-23 07:47:57.422197');
INSERT INTO "resources" VALUES(8,'eval_task','old-task','','memory','old-task','{"dataset_id": "old-dataset", "scoring_functions": ["old-function"], "metadata": {}}','','2026-11-23 07:47:57.426721','2026-11-23 07:47:57.426721');
INSERT INTO "resources" VALUES(9,'tool_group','builtin::memory','','memory','builtin::memory','{}','','2026-11-23 07:47:57.433520','2026-11-23 07:47:57.433520');
INSERT INTO "resources" VALUES(10,'tool','echo','','memory','echo','{"toolgroup_id": "builtin::memory", "tool_host": "distribution", "description": "Answers with the text it was given.", "parameters": [{"name": "text", "parameter_type": "string", "description": "Any text.", "required": true}], "metadata": {}}','','2026-11-23 07:47:57.434007','2026-11-23 07:47:57.434007');
INSERT INTO "resources" VALUES(11,'tool','clock','','memory','clock','{"toolgroup_id": "builtin::memory", "tool_host": "distribution", "description": "Tells the time.", "parameters": [], "metadata": {}}','','2026-11-23 07:47:57.434623','2026-11-23 07:47:57.434623');
CREATE TABLE span_logs (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	trace_id TEXT NOT NULL, 
	span_id TEXT NOT NULL, 
	time BIGINT NOT NULL, 
	message TEXT NOT NULL, 
	severity TEXT NOT NULL, 
	attributes JSON NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_span_logs PRIMARY KEY (seq)
);
INSERT INTO "span_logs" VALUES(1,'','4bf92f3577b34da6a3ce929d0e0e4736','00f067aa0ba902b7',1795579201000000,'it was so','info','{}',4949182138031144);
CREATE TABLE spans (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	trace_id TEXT NOT NULL, 
	span_id TEXT NOT NULL, 
	parent_span_id TEXT, 
	name TEXT, 
	start_time BIGINT, 
	end_time BIGINT, 
	status TEXT, 
	attributes JSON NOT NULL, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_spans PRIMARY KEY (seq), 
	CONSTRAINT uq_spans_owner_trace_id_span_id UNIQUE (owner, trace_id, span_id)
);
INSERT INTO "spans" VALUES(1,'','4bf92f3577b34da6a3ce929d0e0e4736','00f067aa0ba902b7',NULL,'old-span',1795579200000000,1795579201000000,'ok','{"session_id": "old"}',4949182137957588);
CREATE TABLE traces (
	seq INTEGER NOT NULL, 
	owner TEXT NOT NULL, 
	trace_id TEXT NOT NULL, 
	root_span_id TEXT, 
	root_has_parent BOOLEAN NOT NULL, 
	start_time BIGINT, 
	end_time BIGINT, 
	expires_at BIGINT NOT NULL, 
	CONSTRAINT pk_traces PRIMARY KEY (seq), 
	CONSTRAINT uq_traces_owner_trace_id UNIQUE (owner, trace_id)
);
INSERT INTO "traces" VALUES(1,'','4bf92f3577b34da6a3ce929d0e0e4736','00f067aa0ba902b7',0,1795579200000000,1795579201000000,4949182137957588);
CREATE TABLE unclaimed_storage (
	storage_name TEXT NOT NULL, 
	due_at DATETIME NOT NULL, 
	CONSTRAINT pk_unclaimed_storage PRIMARY KEY (storage_name)
);
CREATE INDEX ix_traces_owner_start_time ON traces (owner, start_time);
CREATE INDEX ix_spans_owner_span_id ON spans (owner, span_id);
CREATE INDEX ix_span_logs_owner_trace_id ON span_logs (owner, trace_id);
CREATE INDEX ix_metrics_owner_metric ON metrics (owner, metric);
CREATE INDEX ix_traces_expires_at ON traces (expires_at);
CREATE INDEX ix_spans_expires_at ON spans (expires_at);
CREATE INDEX ix_span_logs_expires_at ON span_logs (expires_at);
CREATE INDEX ix_metrics_expires_at ON metrics (expires_at);
CREATE INDEX ix_agent_sessions_agent_id ON agent_sessions (agent_id);
CREATE INDEX ix_agent_sessions_expires_at ON agent_sessions (expires_at);
CREATE INDEX ix_agent_sessions_turn_id ON agent_sessions (turn_id);
CREATE INDEX ix_agent_turns_session_id ON agent_turns (session_id);
CREATE INDEX ix_agent_steps_turn_id ON agent_steps (turn_id);
CREATE INDEX ix_jobs_state ON jobs (state);
COMMIT;

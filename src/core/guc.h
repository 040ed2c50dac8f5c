/*
 * guc.h
 *		The settings of behavior, one variable each, named like the setting.
 *
 * Who may change which is in doc/reference.md ("Settings"); units stand here.
 */
#ifndef BEHAVIOR_GUC_H
#define BEHAVIOR_GUC_H

typedef enum OnInvalid
{
	ON_INVALID_DEAD_LETTER,
	ON_INVALID_ERROR
} OnInvalid;

typedef enum UnknownType
{
	UNKNOWN_TYPE_ACCEPT,
	UNKNOWN_TYPE_DEAD_LETTER
} UnknownType;

/* Any sender. */
extern int behavior_on_invalid; /* OnInvalid */
extern char *behavior_correlation_id;
extern char *behavior_default_source;
extern bool behavior_copy_ahead;

/* Superuser, and those granted SET. */
extern int behavior_max_event_size;		  /* bytes */
extern int behavior_max_future;			  /* seconds; -1: no limit */
extern int behavior_max_past;			  /* seconds; -1: no limit */
extern int behavior_unknown_type;		  /* UnknownType */
extern int behavior_session_timeout;	  /* seconds */
extern char *behavior_page_property;	  /* list of names */
extern char *behavior_session_properties; /* list of names */
extern char *behavior_session_ignore;	  /* list of event types */

/* Reload. */
extern bool behavior_worker;
extern char *behavior_databases;   /* list of names, or * */
extern int behavior_tick_interval; /* milliseconds */
extern int behavior_tick_events;
extern int behavior_idempotency_window; /* seconds; -1: for ever */
extern int behavior_batch_retention;	/* seconds; -1: for ever */
extern int behavior_maintenance_workers;
extern int behavior_delivery_workers;
extern int behavior_handler_timeout; /* ms, 0: none */
extern int behavior_max_hops;

/* Developers. */
extern int behavior_key_generation_size;
extern int behavior_key_run_size;
extern int behavior_retry_delay; /* ms */

/* Defines every setting and reserves the prefix.  Called once, by _PG_init. */
extern void define_settings(void);

#endif

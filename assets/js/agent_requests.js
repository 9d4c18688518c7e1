/**
 * What an agent asks to use, on its own page, answered as on the dashboard.
 *
 * That is safe here because nothing of it is the agent's to say: the page is core's file on the operator's
 * origin, and what waits is told by core's own route and event. A harness's events come under other names;
 * core passes none on that it calls `permissions` (docs/security.md, 2). The answer passes the same gate.
 */

import { getJson } from "./api.js";
import { announce } from "./notices.js";
import { renderPermissions } from "./permissions.js";

/** @typedef {import("./types.js").PermissionView} PermissionView */

export class Requests {
  /** @param {string} base the path of the page */
  constructor(base) {
    this.base = base;
    /** @type {PermissionView[]} */
    this.permissions = [];
    this.told = 0; // by the stream: an answer that was asked for before is out of date
  }

  /** Asks core, which also knows them while the harness is silent. */
  async ask() {
    const { told } = this;
    const { requests } = await getJson(`${this.base}api/permissions`);
    if (told === this.told) this.show(requests);
  }

  /** @param {PermissionView[]} requests as the stream tells them: all that wait now */
  take(requests) {
    this.told += 1;
    this.show(requests);
  }

  /** @param {PermissionView[]} requests */
  show(requests) {
    const known = new Set(this.permissions.map((each) => each.id));
    for (const { id, agent, tool } of requests) if (!known.has(id)) announce(`${agent} asks to use ${tool}`);
    this.permissions = requests;
    this.render();
  }

  render() {
    renderPermissions(this);
  }
}

// The task set of a nexus (SAM-5 §8): each has its own (TST 001b), since a nexus is at one member, and nexuses at several
// are in no order. Simple tasks run at once and in any order;
// an ordered one waits for all before it, and those after it wait; head of queue runs at once and the others wait for it.

import { TaskAttribute } from "../session/task.ts";

/** What the task set keeps of a command; the command owns these fields and nobody else writes to them. */
export interface TaskSetMember {
  attribute: number;
  dormant: boolean;
  aborted: boolean;
  previous: TaskSetMember | null;
  next: TaskSetMember | null;
  /** Runs the command: it has become enabled. */
  enable(): void;
}

export class TaskSet<Member extends TaskSetMember> {
  #first: TaskSetMember | null = null;
  #last: TaskSetMember | null = null;
  #count = 0;
  /** Ordered and head of queue tasks in the set: while there is none, nobody waits. */
  #barriers = 0;
  #dormant = 0;
  #waking = false;
  #wakeAgain = false;
  #paused = 0;

  get count(): number {
    return this.#count;
  }

  /** Puts a command in and says whether it may run now; if not, its enable() is called when it may. */
  add(member: Member): boolean {
    const head = member.attribute === TaskAttribute.headOfQueue;
    const ordered = member.attribute === TaskAttribute.ordered;
    member.dormant = !head && (ordered ? this.#count > 0 : this.#barriers > 0);
    if (head) this.#pushFront(member);
    else this.#pushBack(member);
    this.#count++;
    if (head || ordered) this.#barriers++;
    if (member.dormant) this.#dormant++;
    return !member.dormant;
  }

  remove(member: Member): void {
    if (member.previous === null) this.#first = member.next;
    else member.previous.next = member.next;
    if (member.next === null) this.#last = member.previous;
    else member.next.previous = member.previous;
    member.previous = null;
    member.next = null;
    this.#count--;
    if (isBarrier(member)) this.#barriers--;
    if (member.dormant) this.#dormant--;
    member.dormant = false;
  }

  /** Enables whoever waited for a command that has been removed. Call it when that command is wholly done with. */
  wake(): void {
    if (this.#dormant === 0 || this.#paused > 0) return;
    this.#wakeAgain = true;
    if (this.#waking) return;
    this.#waking = true;
    while (this.#wakeAgain) {
      this.#wakeAgain = false;
      const ready = this.#firstReady();
      if (ready === null) continue;
      ready.dormant = false;
      this.#dormant--;
      this.#wakeAgain = true;
      ready.enable();
    }
    this.#waking = false;
  }

  /** Until resume() nobody is enabled, so that a group of commands can be aborted as a whole. */
  pause(): void {
    this.#paused++;
  }

  resume(): void {
    this.#paused--;
    this.wake();
  }

  /** Every command of the set that `wanted` picks, in order: a copy, so that the caller may remove them. */
  select(wanted: (member: Member) => boolean): Member[] {
    const found: Member[] = [];
    for (let m = this.#first; m !== null; m = m.next) if (wanted(m as Member)) found.push(m as Member);
    return found;
  }

  #firstReady(): TaskSetMember | null {
    let barrierBefore = false;
    for (let m = this.#first; m !== null; m = m.next) {
      const ordered = m.attribute === TaskAttribute.ordered;
      const waits = ordered ? m !== this.#first : barrierBefore;
      if (m.dormant && !waits && !m.aborted) return m;
      if (isBarrier(m)) barrierBefore = true;
    }
    return null;
  }

  #pushFront(member: TaskSetMember): void {
    member.previous = null;
    member.next = this.#first;
    if (this.#first !== null) this.#first.previous = member;
    else this.#last = member;
    this.#first = member;
  }

  #pushBack(member: TaskSetMember): void {
    member.next = null;
    member.previous = this.#last;
    if (this.#last !== null) this.#last.next = member;
    else this.#first = member;
    this.#last = member;
  }
}

function isBarrier(member: TaskSetMember): boolean {
  return member.attribute === TaskAttribute.ordered || member.attribute === TaskAttribute.headOfQueue;
}
